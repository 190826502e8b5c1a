//! Flags that `service create` and `service update` share: each sets one field if it was given.

use clap::Args;

/// Everything about a service that has one value.
#[derive(Args, Clone, Debug, Default)]
pub struct SpecFlags {
    /// Add a Linux capability, or ALL
    #[arg(long, value_name = "CAPABILITY")]
    pub cap_add: Vec<String>,
    /// Drop a Linux capability, or ALL
    #[arg(long, value_name = "CAPABILITY")]
    pub cap_drop: Vec<String>,
    /// none, or client-ip: connections of one client address go to one task, while the tasks are the same
    #[arg(long, value_name = "AFFINITY")]
    pub endpoint_affinity: Option<String>,
    /// vip (one address for the service) or dnsrr (the tasks' addresses)
    #[arg(long, value_name = "MODE")]
    pub endpoint_mode: Option<String>,
    /// any, or local: new connections go to tasks on the node that they come to, if it has any
    #[arg(long, value_name = "PREFERENCE")]
    pub endpoint_prefer: Option<String>,
    /// Run this in place of the image's entrypoint
    #[arg(long, value_name = "COMMAND")]
    pub entrypoint: Option<String>,
    /// Command that tells whether the container is well
    #[arg(long, value_name = "COMMAND")]
    pub health_cmd: Option<String>,
    /// Time between checks
    #[arg(long, value_name = "DURATION")]
    pub health_interval: Option<String>,
    /// Failed checks in a row that make it unhealthy
    #[arg(long, value_name = "N")]
    pub health_retries: Option<u32>,
    /// Time between checks while it starts
    #[arg(long, value_name = "DURATION")]
    pub health_start_interval: Option<String>,
    /// Time in which failed checks do not count
    #[arg(long, value_name = "DURATION")]
    pub health_start_period: Option<String>,
    /// Longest time of one check
    #[arg(long, value_name = "DURATION")]
    pub health_timeout: Option<String>,
    /// Do not run the image's health check
    #[arg(long)]
    pub no_healthcheck: bool,
    /// Hostname in the containers
    #[arg(long, value_name = "NAME")]
    pub hostname: Option<String>,
    /// Run an init process in each container
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub init: Option<bool>,
    /// CPUs that a task may use at most, e.g. 0.5
    #[arg(long, value_name = "CPUS")]
    pub limit_cpu: Option<String>,
    /// Memory that a task may use at most
    #[arg(long, value_name = "SIZE")]
    pub limit_memory: Option<String>,
    /// Processes that a task may have at most; 0 = no limit
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub limit_pids: Option<i64>,
    /// json-file, local or none
    #[arg(long, value_name = "DRIVER")]
    pub log_driver: Option<String>,
    /// Option of the log driver: max-size, max-file
    #[arg(long, value_name = "KEY=VALUE")]
    pub log_opt: Vec<String>,
    /// Let no program of the containers gain privileges, e.g. by a setuid file
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub no_new_privileges: Option<bool>,
    /// Do not ask the registry which digest the image has
    #[arg(long)]
    pub no_resolve_image: bool,
    /// Preference of the kernel's OOM killer, -1000 to 1000
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub oom_score_adj: Option<i32>,
    /// Mount the containers' root filesystem read-only
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub read_only: Option<bool>,
    /// Number of tasks
    #[arg(long, value_name = "N")]
    pub replicas: Option<u64>,
    /// Tasks on one node at most; 0 = no limit
    #[arg(long, value_name = "N")]
    pub replicas_max_per_node: Option<u64>,
    /// CPUs that a node must have free for a task
    #[arg(long, value_name = "CPUS")]
    pub reserve_cpu: Option<String>,
    /// Memory that a node must have free for a task
    #[arg(long, value_name = "SIZE")]
    pub reserve_memory: Option<String>,
    /// When a finished task is replaced: none, on-failure or any [default: any]
    #[arg(long, value_name = "CONDITION")]
    pub restart_condition: Option<String>,
    /// Pause before a replacement starts [default: 5s]
    #[arg(long, value_name = "DURATION")]
    pub restart_delay: Option<String>,
    /// Replacements of one slot at most; 0 = no limit
    #[arg(long, value_name = "N")]
    pub restart_max_attempts: Option<u64>,
    /// Window in which replacements are counted
    #[arg(long, value_name = "DURATION")]
    pub restart_window: Option<String>,
    #[command(flatten)]
    pub update: UpdateFlags,
    #[command(flatten)]
    pub rollback: RollbackFlags,
    /// Time between the stop signal and SIGKILL [default: 10s]
    #[arg(long, value_name = "DURATION")]
    pub stop_grace_period: Option<String>,
    /// Signal that stops a container [default: the image's, else SIGTERM]
    #[arg(long, value_name = "SIGNAL")]
    pub stop_signal: Option<String>,
    /// Give the containers a terminal
    #[arg(long, short, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub tty: Option<bool>,
    /// User of the containers' process
    #[arg(long, short, value_name = "NAME|UID[:GROUP|GID]")]
    pub user: Option<String>,
    /// Hand your registry credentials to the nodes that run the tasks
    #[arg(long)]
    pub with_registry_auth: bool,
    /// Working directory in the containers
    #[arg(long, short, value_name = "PATH")]
    pub workdir: Option<String>,
    #[command(flatten)]
    pub wait: WaitFlags,
}

/// How a change rolls out.
#[derive(Args, Clone, Debug, Default)]
pub struct UpdateFlags {
    /// Slots replaced at once; 0 = all [default: 1]
    #[arg(long, value_name = "N")]
    pub update_parallelism: Option<u64>,
    /// Pause between slots [default: 0s]
    #[arg(long, value_name = "DURATION")]
    pub update_delay: Option<String>,
    /// What happens when a task fails; only pause is built yet [default: pause]
    #[arg(long, value_name = "ACTION")]
    pub update_failure_action: Option<String>,
    /// Share of tasks that may fail; only 0 is built yet
    #[arg(long, value_name = "RATIO")]
    pub update_max_failure_ratio: Option<f64>,
    /// Time in which a new task's failure counts [default: 5s]
    #[arg(long, value_name = "DURATION")]
    pub update_monitor: Option<String>,
    /// stop-first or start-first [default: stop-first]
    #[arg(long, value_name = "ORDER")]
    pub update_order: Option<String>,
}

/// How a rollback rolls out.
#[derive(Args, Clone, Debug, Default)]
pub struct RollbackFlags {
    /// Slots rolled back at once; 0 = all [default: 1]
    #[arg(long, value_name = "N")]
    pub rollback_parallelism: Option<u64>,
    /// Pause between slots [default: 0s]
    #[arg(long, value_name = "DURATION")]
    pub rollback_delay: Option<String>,
    /// What happens when a task fails; only pause is built yet [default: pause]
    #[arg(long, value_name = "ACTION")]
    pub rollback_failure_action: Option<String>,
    /// Share of tasks that may fail; only 0 is built yet
    #[arg(long, value_name = "RATIO")]
    pub rollback_max_failure_ratio: Option<f64>,
    /// Time in which a new task's failure counts [default: 5s]
    #[arg(long, value_name = "DURATION")]
    pub rollback_monitor: Option<String>,
    /// stop-first or start-first [default: stop-first]
    #[arg(long, value_name = "ORDER")]
    pub rollback_order: Option<String>,
}

/// `--detach` and `--quiet`.
#[derive(Args, Clone, Debug, Default)]
pub struct WaitFlags {
    /// Do not wait until the service has converged
    #[arg(long, short)]
    pub detach: bool,
    /// Do not show progress
    #[arg(long, short)]
    pub quiet: bool,
}
