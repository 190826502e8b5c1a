//! Volumes of this node.

use rswarm_api::pb;
use rswarm_runtime::volume::{Volume, VolumeError};
use tonic::Status;

use super::LocalApi;
use crate::membership::chain;

/// The only driver.
const DRIVER: &str = "local";

fn refused(error: &VolumeError) -> Status {
    let text = chain(error);
    match error {
        VolumeError::BadName(_) => Status::invalid_argument(text),
        VolumeError::NotFound(_) => Status::not_found(text),
        VolumeError::InUse { .. } => Status::already_exists(text),
        VolumeError::Io { .. } => Status::internal(text),
    }
}

fn shown(volume: Volume) -> pb::Volume {
    pb::Volume {
        name: volume.name,
        driver: DRIVER.into(),
        mountpoint: volume.data.display().to_string(),
        labels: volume.labels,
        created_at: volume.created_at_ms,
        options: Default::default(),
    }
}

impl LocalApi {
    pub(super) async fn make_volume(&self, request: pb::Volume) -> Result<pb::Volume, Status> {
        if !matches!(request.driver.as_str(), "" | DRIVER) {
            let text =
                format!("invalid --driver \"{}\": only \"local\" exists; others are not built yet", request.driver);
            return Err(Status::invalid_argument(text));
        }
        if let Some(option) = request.options.keys().next() {
            let text = format!("invalid --opt \"{option}\": options of the local driver are not built yet");
            return Err(Status::invalid_argument(text));
        }
        let name = if request.name.is_empty() {
            format!("{:032x}{:032x}", self.daemon.edge.random(), self.daemon.edge.random())
        } else {
            request.name
        };
        self.daemon.volumes.create(&name, &request.labels).map(shown).map_err(|e| refused(&e))
    }

    pub(super) async fn volume_list(&self, _: pb::Empty) -> Result<pb::VolumeList, Status> {
        let volumes = self.daemon.volumes.list().map_err(|e| refused(&e))?;
        Ok(pb::VolumeList { volumes: volumes.into_iter().map(shown).collect() })
    }

    pub(super) async fn volume(&self, request: pb::Ref) -> Result<pb::Volume, Status> {
        self.daemon.volumes.inspect(&request.name).map(shown).map_err(|e| refused(&e))
    }

    pub(super) async fn drop_volume(&self, request: pb::RemoveVolumeRequest) -> Result<pb::Empty, Status> {
        let users = self.daemon.runtime.volume_users(&request.name);
        match self.daemon.volumes.remove(&request.name, users) {
            Err(VolumeError::NotFound(_)) if request.force => Ok(pb::Empty {}),
            Err(error) => Err(refused(&error)),
            Ok(()) => Ok(pb::Empty {}),
        }
    }
}
