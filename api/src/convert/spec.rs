//! Specs.

use rswarm_types::spec::container::DnsConfig;
use rswarm_types::spec::*;

use crate::pb;
use crate::wire::{Wire, WireError, wire_enum, wire_struct};

wire_enum!(Role { Worker = 0, Manager = 1 });
wire_enum!(Availability { Active = 0, Pause = 1, Drain = 2 });
wire_enum!(Control { None = 0, Read = 1, Full = 2 });
wire_enum!(NetworkDriver { Overlay = 0, Host = 1, Null = 2 });
wire_enum!(MountKind { Volume = 0, Bind = 1, Tmpfs = 2 });
wire_enum!(RestartCondition { None = 0, OnFailure = 1, Any = 2 });
wire_enum!(UpdateOrder { StopFirst = 0, StartFirst = 1 });
wire_enum!(FailureAction { Pause = 0 });
wire_enum!(EndpointMode { Vip = 0, DnsRr = 1 });
wire_enum!(Protocol { Tcp = 0, Udp = 1, Sctp = 2 });
wire_enum!(PublishMode { Ingress = 0, Host = 1 });

wire_struct!(ClusterSpec => pb::ClusterSpec {
    name, labels, address_pools, subnet_bits, data_path_port, cert_expiry, task_history_limit, snapshot_interval
});
wire_struct!(NodeSpec => pb::NodeSpec { name, labels, role, availability, control });
wire_struct!(SubnetSpec => pb::SubnetSpec { subnet, gateway, range, aux_addresses });
wire_struct!(Ipam => pb::Ipam { subnets });
wire_struct!(NetworkSpec => pb::NetworkSpec {
    name, labels, driver, driver_opts, ipv6, internal, attachable, ingress; ipam
});
wire_struct!(DnsConfig => pb::DnsConfig { nameservers, search, options });
wire_struct!(Privileges => pb::Privileges { no_new_privileges, seccomp_unconfined });
wire_struct!(HostEntry => pb::HostEntry { name, address });
wire_struct!(Healthcheck => pb::Healthcheck { test, interval, timeout, start_period, start_interval, retries });
wire_struct!(Ulimit => pb::Ulimit { name, soft, hard });
wire_struct!(BindOptions => pb::BindOptions { propagation, non_recursive, create_source });
wire_struct!(VolumeOptions => pb::VolumeOptions { no_copy, labels, subpath });
wire_struct!(TmpfsOptions => pb::TmpfsOptions { size, mode });
wire_struct!(Mount => pb::Mount { kind, source, target, read_only; bind, volume, tmpfs });
wire_struct!(ContainerSpec => pb::ContainerSpec {
    image, labels, command, args, env, hostname, dir, user, groups, tty, open_stdin, read_only, stop_signal,
    stop_grace, healthcheck, mounts, hosts, init, sysctls, cap_add, cap_drop, ulimits, oom_score_adj;
    privileges, dns
});
wire_struct!(Resources => pb::Resources { limit_cpu, limit_memory, limit_pids, reserve_cpu, reserve_memory });
wire_struct!(RestartPolicy => pb::RestartPolicy { condition, delay, max_attempts, window });
wire_struct!(SpreadPreference => pb::SpreadPreference { descriptor });
wire_struct!(Platform => pb::Platform { os, architecture });
wire_struct!(Placement => pb::Placement { constraints, preferences, max_replicas_per_node, platforms });
wire_struct!(NetworkAttachment => pb::NetworkAttachment { target, aliases, driver_opts });
wire_struct!(LogDriver => pb::LogDriver { name, options });
wire_struct!(TaskSpec => pb::TaskSpec {
    networks, log_driver, force_update; container, resources, restart, placement
});
wire_struct!(UpdateConfig => pb::UpdateConfig { parallelism, delay, failure_action, monitor, order });
wire_struct!(PortConfig => pb::PortConfig { protocol, target, published, mode, address });
wire_struct!(EndpointSpec => pb::EndpointSpec { mode, balance, ports });
wire_struct!(ServiceSpec => pb::ServiceSpec { name, labels, update, rollback; task, mode, endpoint });

/// Left out where it is the default.
impl Wire for Balance {
    type Pb = Option<pb::Balance>;
    fn to_pb(&self) -> Self::Pb {
        let Self { by_client, prefers_local } = *self;
        (*self != Self::default()).then_some(pb::Balance { by_client, prefers_local })
    }
    fn from_pb(pb: Self::Pb) -> Result<Self, WireError> {
        let pb::Balance { by_client, prefers_local } = pb.unwrap_or_default();
        Ok(Self { by_client, prefers_local })
    }
}

impl Wire for ServiceMode {
    type Pb = pb::ServiceMode;

    fn to_pb(&self) -> pb::ServiceMode {
        use pb::service_mode::Mode;
        pb::ServiceMode {
            mode: Some(match *self {
                Self::Replicated { replicas } => Mode::Replicated(pb::Replicated { replicas }),
                Self::Global => Mode::Global(pb::Global {}),
            }),
        }
    }

    fn from_pb(pb: pb::ServiceMode) -> Result<Self, WireError> {
        use pb::service_mode::Mode;
        match pb.mode.ok_or(WireError::Missing("ServiceMode.mode"))? {
            Mode::Replicated(r) => Ok(Self::Replicated { replicas: r.replicas }),
            Mode::Global(_) => Ok(Self::Global),
        }
    }
}
