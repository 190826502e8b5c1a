//! What users ask for. The system never writes a spec.

pub mod cluster;
pub mod container;
pub mod network;
pub mod node;
pub mod service;

pub use cluster::ClusterSpec;
pub use container::{
    BindOptions, ContainerSpec, Healthcheck, HostEntry, Mount, MountKind, Privileges, TmpfsOptions, Ulimit,
    VolumeOptions,
};
pub use network::{Ipam, NetworkDriver, NetworkSpec, SubnetSpec};
pub use node::{Availability, Control, NodeSpec, Role};
pub use service::{
    Balance, EndpointMode, EndpointSpec, FailureAction, LogDriver, NetworkAttachment, Placement, Platform, PortConfig,
    Protocol, PublishMode, Resources, RestartCondition, RestartPolicy, ServiceMode, ServiceSpec, SpreadPreference,
    TaskSpec, UpdateConfig, UpdateOrder, share_address,
};
