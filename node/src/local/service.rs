//! The gRPC face of the node's own API: each call in one line.

use futures::stream::BoxStream;
use rswarm_api::pb;
use rswarm_api::pb::node_api_server::NodeApi;
use tonic::{Request, Response, Status, Streaming};

use super::LocalApi;

type Answer<T> = Result<Response<T>, Status>;
/// What a pull or push reports.
pub(super) type ProgressStream = BoxStream<'static, Result<pb::ImageProgress, Status>>;

macro_rules! forward {
    ($($name:ident($message:ty) -> $answer:ty = $method:ident;)*) => {
        #[tonic::async_trait]
        impl NodeApi for LocalApi {
            type PullImageStream = ProgressStream;
            type PushImageStream = ProgressStream;
            $(
                async fn $name(&self, request: Request<$message>) -> Answer<$answer> {
                    self.$method(request.into_inner()).await.map(Response::new)
                }
            )*
        }
    };
}

forward! {
    info(pb::Empty) -> pb::NodeInfo = node_info;
    init(pb::InitRequest) -> pb::InitReply = init;
    join(pb::JoinRequest) -> pb::JoinReply = join;
    leave(pb::LeaveRequest) -> pb::Empty = leave;
    containers(pb::ContainersRequest) -> pb::ContainerList = container_list;
    resolve_image(pb::ResolveImageRequest) -> pb::ResolvedImage = resolve;
    pull_image(pb::PullImageRequest) -> ProgressStream = pull;
    push_image(pb::PullImageRequest) -> ProgressStream = push;
    load_image(Streaming<pb::ImageChunk>) -> pb::LoadImageReply = load;
    list_images(pb::Empty) -> pb::ImageList = image_list;
    remove_image(pb::RemoveImageRequest) -> pb::RemoveImageReply = drop_image;
    check_login(pb::LoginRequest) -> pb::LoginReply = login;
    create_volume(pb::Volume) -> pb::Volume = make_volume;
    list_volumes(pb::Empty) -> pb::VolumeList = volume_list;
    get_volume(pb::Ref) -> pb::Volume = volume;
    remove_volume(pb::RemoveVolumeRequest) -> pb::Empty = drop_volume;
}
