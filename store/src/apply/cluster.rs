//! The cluster object: made once, updated, its tokens rotated.

use rswarm_types::Refusal;
use rswarm_types::cluster::{Cluster, JoinTokens};
use rswarm_types::command::{Answer, NetworkSpecWithId};
use rswarm_types::limits::FEATURE_LEVEL;
use rswarm_types::node::Node;
use rswarm_types::spec::ClusterSpec;

use super::{Draft, check_version};

impl Draft {
    pub(super) fn init(
        &mut self,
        cluster: &Cluster,
        node: &Node,
        networks: &[NetworkSpecWithId],
    ) -> Result<Answer, Refusal> {
        if let Some(existing) = self.state.cluster() {
            return Err(Refusal::Conflict(format!("this is already cluster {}", existing.id)));
        }
        if cluster.feature_level > FEATURE_LEVEL {
            return Err(Refusal::Unsupported(format!(
                "a new cluster asks for feature level {}, this build has {FEATURE_LEVEL}",
                cluster.feature_level,
            )));
        }
        let mut cluster = cluster.clone();
        cluster.meta = self.made();
        self.put_cluster(cluster);
        // The ingress network takes the first subnet of the pools.
        let (ingress, others): (Vec<_>, Vec<_>) = networks.iter().partition(|network| network.spec.ingress);
        for network in ingress.into_iter().chain(others) {
            self.make_network(network.id, &network.spec)?;
        }
        let mut node = node.clone();
        node.meta = self.made();
        node.number = self.next_node_number()?;
        node.ingress = self.next_node_ingress()?;
        node.admitted = self.at;
        node.status.since = self.at;
        self.put_node(node);
        Ok(Answer::Done)
    }

    pub(super) fn update_cluster(&mut self, version: u64, spec: &ClusterSpec) -> Result<Answer, Refusal> {
        let mut cluster = self.cluster()?;
        check_version("cluster", &cluster.spec.name, cluster.meta.version, version)?;
        let fixed =
            |spec: &ClusterSpec| (spec.name.clone(), spec.address_pools.clone(), spec.subnet_bits, spec.data_path_port);
        if fixed(&cluster.spec) != fixed(spec) {
            return Err(Refusal::Conflict(
                "the cluster's name, address pools, subnet size and data path port are fixed at init".into(),
            ));
        }
        if cluster.spec != *spec {
            cluster.spec = spec.clone();
            self.touch(&mut cluster.meta);
            self.put_cluster(cluster);
        }
        Ok(Answer::Done)
    }

    pub(super) fn rotate_tokens(
        &mut self,
        tokens: &JoinTokens,
        worker: bool,
        manager: bool,
    ) -> Result<Answer, Refusal> {
        let mut cluster = self.cluster()?;
        if worker {
            cluster.tokens.worker.clone_from(&tokens.worker);
        }
        if manager {
            cluster.tokens.manager.clone_from(&tokens.manager);
        }
        let answer = Answer::Tokens(cluster.tokens.clone());
        self.touch(&mut cluster.meta);
        self.put_cluster(cluster);
        Ok(answer)
    }

    fn cluster(&self) -> Result<Cluster, Refusal> {
        let cluster = self.state.cluster().ok_or_else(|| Refusal::not_found("cluster", "default"))?;
        Ok(cluster.as_ref().clone())
    }

    fn put_cluster(&mut self, cluster: Cluster) {
        self.changed.cluster = true;
        self.state.put_cluster(cluster);
    }
}
