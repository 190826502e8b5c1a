//! Containers on one node: images, the plan of a container, the shim that makes it, and the handle that the worker
//! drives.
//!
//! ```text
//! ServiceSpec + ImageConfig ──spec──▶ ContainerPlan ──Runtime::start──▶ shim ──▶ container
//!                                                                        └──execve──▶ reaper (2 KB) ──▶ logs, exit
//! ```
//!
//! The daemon never forks a container itself and may die at any time: [`Runtime::open`] finds every container again.

pub mod image;

pub mod capability;
mod plan;
pub mod signal;
pub mod spec;
pub mod volume;

mod logs;
mod runtime;
mod shim;

mod cgroup;
mod oci;
mod rootfs;
mod seccomp;
mod state;
mod sys;
mod user;

pub use capability::DefaultCapabilities;
pub use logs::{LogLine, LogQuery};
pub use plan::{
    CPU_PERIOD_US, ContainerPlan, LogPlan, MountSource, NetNs, PlannedMount, PlannedResources, PlannedUlimit,
};
pub use runtime::{
    ContainerState, ExecError, ExecOutcome, Exit, ExitEvent, Observed, OpenError, OperateError, Outcome, Runtime,
    RuntimeConfig, StartError, StartErrorKind, Started,
};
pub use shim::shim_main;
pub use spec::{Defaults, NodePaths, PlanError, Sandbox, container_plan};
pub use state::Backend;
