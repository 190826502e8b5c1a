//! The gRPC face of the control API: each call in one line.

use rswarm_api::pb;
use rswarm_api::pb::control_api_server::ControlApi;
use tonic::{Request, Response, Status};

use super::ControlService;
use super::logs::LogStream;
use super::watch::ProgressStream;

type Answer<T> = Result<Response<T>, Status>;

macro_rules! forward {
    ($($name:ident($message:ty) -> $answer:ty = $method:ident;)*) => {
        #[tonic::async_trait]
        impl ControlApi for ControlService {
            type WatchServiceStream = ProgressStream;
            type LogsStream = LogStream;
            $(
                async fn $name(&self, request: Request<$message>) -> Answer<$answer> {
                    self.$method(request).await.map(Response::new)
                }
            )*
        }
    };
}

forward! {
    get_cluster(pb::Empty) -> pb::Cluster = cluster;
    update_cluster(pb::UpdateClusterRequest) -> pb::Empty = change_cluster;
    get_tokens(pb::Empty) -> pb::JoinTokens = tokens;
    rotate_tokens(pb::RotateTokensRequest) -> pb::JoinTokens = rotate;
    list_nodes(pb::Empty) -> pb::NodeList = nodes;
    get_node(pb::Ref) -> pb::NodeView = node;
    update_node(pb::UpdateNodeRequest) -> pb::Empty = change_node;
    remove_node(pb::RemoveNodeRequest) -> pb::Empty = drop_node;
    create_network(pb::NetworkSpec) -> pb::Ref = make_network;
    list_networks(pb::Empty) -> pb::NetworkList = networks;
    get_network(pb::Ref) -> pb::Network = network;
    remove_network(pb::Ref) -> pb::Empty = drop_network;
    create_service(pb::CreateServiceRequest) -> pb::ServiceAnswer = make_service;
    update_service(pb::UpdateServiceRequest) -> pb::ServiceAnswer = change_service;
    remove_service(pb::Ref) -> pb::Empty = drop_service;
    list_services(pb::Empty) -> pb::ServiceList = services;
    get_service(pb::Ref) -> pb::ServiceView = service;
    list_tasks(pb::ListTasksRequest) -> pb::TaskList = tasks;
    get_task(pb::Ref) -> pb::Task = task;
    watch_service(pb::Ref) -> ProgressStream = watch;
    logs(pb::LogsRequest) -> LogStream = log_stream;
    deploy_stack(pb::StackChange) -> pb::StackAnswer = deploy;
    remove_stack(pb::Ref) -> pb::StackAnswer = drop_stack;
}
