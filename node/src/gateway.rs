//! The control API on the local socket: this node's own manager, or a manager elsewhere.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use arc_swap::ArcSwap;
use futures::future::BoxFuture;
use rswarm_api::pb::control_api_server::ControlApiServer;
use rswarm_manager::ControlService;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::transport::Channel;
use tower::{Service, ServiceExt};

/// Where control calls go at the moment.
#[derive(Clone)]
pub enum Target {
    /// This node is in no cluster, or cannot be: the text says why and what to do.
    Nowhere(String),
    /// This node's manager.
    Here(ControlApiServer<ControlService>),
    /// A manager that this worker has a session with.
    There(Channel),
}

/// A gRPC service that passes calls on. Cheap to clone.
#[derive(Clone)]
pub struct Gateway {
    target: Arc<ArcSwap<Target>>,
}

impl Gateway {
    pub fn new(target: Target) -> Self {
        Self { target: Arc::new(ArcSwap::from_pointee(target)) }
    }

    /// Sends later calls elsewhere.
    pub fn set(&self, target: Target) {
        self.target.store(Arc::new(target));
    }
}

impl NamedService for Gateway {
    const NAME: &'static str = "rswarm.v1.ControlApi";
}

impl Service<http::Request<Body>> for Gateway {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let target = self.target.load_full();
        Box::pin(async move {
            match target.as_ref().clone() {
                Target::Nowhere(why) => Ok(tonic::Status::failed_precondition(why).into_http()),
                Target::Here(service) => service.oneshot(request).await,
                Target::There(channel) => Ok(channel.oneshot(request).await.unwrap_or_else(|error| {
                    let text = format!("the manager of this worker's session did not answer: {error}");
                    tonic::Status::unavailable(text).into_http()
                })),
            }
        })
    }
}
