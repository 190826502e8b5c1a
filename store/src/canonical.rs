//! One byte form per record, for the digest only: never written to disk or wire.
//!
//! Each implementation takes its type apart without `..`, so that a new field does not compile
//! until it is part of the digest.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use rswarm_types::cluster::{Cluster, JoinTokens, Meta, RootCa};
use rswarm_types::command::{Answer, RequestRecord, RestartHistory, RetiredNumber, StackOutcome};
use rswarm_types::network::{Addresses, Network, SubnetBlock};
use rswarm_types::node::{Membership, Node, NodeDescription, NodeState, NodeStatus, PortProblem};
use rswarm_types::service::{RegistryAuth, Service, UpdateState, UpdateStatus, VirtualIp};
use rswarm_types::spec::container::DnsConfig;
use rswarm_types::spec::{
    Availability, Balance, BindOptions, ClusterSpec, ContainerSpec, Control, EndpointMode, EndpointSpec, FailureAction,
    Healthcheck, HostEntry, Ipam, LogDriver, Mount, MountKind, NetworkAttachment, NetworkDriver, NetworkSpec, NodeSpec,
    Placement, Platform, PortConfig, Privileges, Protocol, PublishMode, Resources, RestartCondition, RestartPolicy,
    Role, ServiceMode, ServiceSpec, SpreadPreference, SubnetSpec, TaskSpec, TmpfsOptions, Ulimit, UpdateConfig,
    UpdateOrder, VolumeOptions,
};
use rswarm_types::task::{Attachment, Slot, Task, TaskStatus};
use rswarm_types::task_state::{DesiredState, TaskState};
use rswarm_types::validate::Violation;
use rswarm_types::{
    Bytes, ClusterId, MemberId, NanoCpus, NetworkId, NodeId, Refusal, RequestId, ServiceId, TaskId, TimestampMs,
};

use crate::digest::RowHash;

/// Appends the one byte form of a value. No two different values of a type have the same.
pub(crate) trait Canonical {
    fn write(&self, out: &mut Vec<u8>);
}

macro_rules! integers {
    ($($type:ty),*) => { $(impl Canonical for $type {
        fn write(&self, out: &mut Vec<u8>) {
            out.extend_from_slice(&self.to_le_bytes());
        }
    })* };
}
integers!(u8, u16, u32, u64, u128, i32, i64);

macro_rules! wrappers {
    ($($type:ty),*) => { $(impl Canonical for $type {
        fn write(&self, out: &mut Vec<u8>) {
            let Self(inner) = self;
            inner.write(out);
        }
    })* };
}
wrappers!(
    ClusterId,
    NodeId,
    ServiceId,
    TaskId,
    NetworkId,
    RequestId,
    MemberId,
    TimestampMs,
    Bytes,
    NanoCpus,
    RegistryAuth
);

macro_rules! records {
    ($($type:ty { $($field:ident),* $(,)? })*) => { $(impl Canonical for $type {
        fn write(&self, out: &mut Vec<u8>) {
            let Self { $($field),* } = self;
            $($field.write(out);)*
        }
    })* };
}

macro_rules! unit_enums {
    ($($type:ident { $($variant:ident = $number:literal),* $(,)? })*) => { $(impl Canonical for $type {
        fn write(&self, out: &mut Vec<u8>) {
            out.push(match self { $(Self::$variant => $number),* });
        }
    })* };
}

impl Canonical for bool {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
}

impl Canonical for str {
    fn write(&self, out: &mut Vec<u8>) {
        (self.len() as u64).write(out);
        out.extend_from_slice(self.as_bytes());
    }
}

impl Canonical for String {
    fn write(&self, out: &mut Vec<u8>) {
        self.as_str().write(out);
    }
}

impl<const N: usize> Canonical for [u8; N] {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
}

impl<T: Canonical> Canonical for Vec<T> {
    fn write(&self, out: &mut Vec<u8>) {
        (self.len() as u64).write(out);
        self.iter().for_each(|item| item.write(out));
    }
}

impl<T: Canonical> Canonical for Option<T> {
    fn write(&self, out: &mut Vec<u8>) {
        self.is_some().write(out);
        self.iter().for_each(|item| item.write(out));
    }
}

impl<T: Canonical> Canonical for Arc<T> {
    fn write(&self, out: &mut Vec<u8>) {
        T::write(self, out);
    }
}

impl<A: Canonical, B: Canonical> Canonical for (A, B) {
    fn write(&self, out: &mut Vec<u8>) {
        self.0.write(out);
        self.1.write(out);
    }
}

impl<K: Canonical, V: Canonical> Canonical for BTreeMap<K, V> {
    fn write(&self, out: &mut Vec<u8>) {
        (self.len() as u64).write(out);
        for (key, value) in self {
            key.write(out);
            value.write(out);
        }
    }
}

impl Canonical for Duration {
    fn write(&self, out: &mut Vec<u8>) {
        self.as_nanos().write(out);
    }
}

impl Canonical for Ipv4Addr {
    fn write(&self, out: &mut Vec<u8>) {
        self.octets().write(out);
    }
}

impl Canonical for Ipv6Addr {
    fn write(&self, out: &mut Vec<u8>) {
        self.octets().write(out);
    }
}

impl Canonical for IpAddr {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::V4(address) => {
                out.push(4);
                address.write(out);
            }
            Self::V6(address) => {
                out.push(6);
                address.write(out);
            }
        }
    }
}

impl Canonical for SocketAddr {
    fn write(&self, out: &mut Vec<u8>) {
        self.ip().write(out);
        self.port().write(out);
        if let Self::V6(v6) = self {
            v6.scope_id().write(out);
        }
    }
}

impl Canonical for IpNet {
    fn write(&self, out: &mut Vec<u8>) {
        self.addr().write(out);
        self.prefix_len().write(out);
    }
}

impl Canonical for TaskState {
    fn write(&self, out: &mut Vec<u8>) {
        (*self as u16).write(out);
    }
}

impl Canonical for Slot {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Number(number) => {
                out.push(0);
                number.write(out);
            }
            Self::Node(node) => {
                out.push(1);
                node.write(out);
            }
        }
    }
}

impl Canonical for ServiceMode {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Replicated { replicas } => {
                out.push(0);
                replicas.write(out);
            }
            Self::Global => out.push(1),
        }
    }
}

unit_enums! {
    Role { Worker = 0, Manager = 1 }
    Availability { Active = 0, Pause = 1, Drain = 2 }
    Control { None = 0, Read = 1, Full = 2 }
    NodeState { Unknown = 0, Down = 1, Ready = 2, Disconnected = 3 }
    NetworkDriver { Overlay = 0, Host = 1, Null = 2 }
    MountKind { Volume = 0, Bind = 1, Tmpfs = 2 }
    RestartCondition { None = 0, OnFailure = 1, Any = 2 }
    UpdateOrder { StopFirst = 0, StartFirst = 1 }
    FailureAction { Pause = 0 }
    EndpointMode { Vip = 0, DnsRr = 1 }
    Protocol { Tcp = 0, Udp = 1, Sctp = 2 }
    PublishMode { Ingress = 0, Host = 1 }
    DesiredState { Ready = 0, Running = 1, Shutdown = 2, Remove = 3 }
    UpdateState { Updating = 0, Paused = 1, Completed = 2, RollbackStarted = 3, RollbackPaused = 4, RollbackCompleted = 5 }
}

records! {
    Meta { version, created_at, updated_at }
    RootCa { certificate, key }
    JoinTokens { worker, manager }
    ClusterSpec {
        name, labels, address_pools, subnet_bits, data_path_port, cert_expiry, task_history_limit, snapshot_interval,
    }
    Cluster { id, meta, spec, root, tokens, era, feature_level }

    NodeSpec { name, labels, role, availability, control }
    Platform { os, architecture }
    PortProblem { port, protocol, reason }
    NodeDescription {
        hostname, platform, cpus, memory, engine_version, engine_labels, data_path_address, control_address,
        addresses, port_problems, feature_range,
    }
    NodeStatus { state, message, address, since, grace_until, grace_at }
    Membership { role, member, is_voter, raft_lost }
    Node {
        id, meta, spec, description, status, membership, number, ingress, admitted, session_epoch, boot_id, key_hash,
    }

    SubnetSpec { subnet, gateway, range, aux_addresses }
    Ipam { subnets }
    NetworkSpec { name, labels, driver, driver_opts, ipam, ipv6, internal, attachable, ingress }
    Addresses { v4, v6 }
    SubnetBlock { subnet, gateway, range }
    Network { id, meta, spec, vni, blocks, removing }

    DnsConfig { nameservers, search, options }
    Privileges { no_new_privileges, seccomp_unconfined }
    HostEntry { name, address }
    Healthcheck { test, interval, timeout, start_period, start_interval, retries }
    Ulimit { name, soft, hard }
    BindOptions { propagation, non_recursive, create_source }
    VolumeOptions { no_copy, labels, subpath }
    TmpfsOptions { size, mode }
    Mount { kind, source, target, read_only, bind, volume, tmpfs }
    ContainerSpec {
        image, labels, command, args, env, hostname, dir, user, groups, privileges, tty, open_stdin, read_only,
        stop_signal, stop_grace, healthcheck, mounts, hosts, dns, init, sysctls, cap_add, cap_drop, ulimits,
        oom_score_adj,
    }
    Resources { limit_cpu, limit_memory, limit_pids, reserve_cpu, reserve_memory }
    RestartPolicy { condition, delay, max_attempts, window }
    SpreadPreference { descriptor }
    Placement { constraints, preferences, max_replicas_per_node, platforms }
    NetworkAttachment { target, aliases, driver_opts }
    LogDriver { name, options }
    TaskSpec { container, resources, restart, placement, networks, log_driver, force_update }
    UpdateConfig { parallelism, delay, failure_action, monitor, order }
    PortConfig { protocol, target, published, mode, address }
    Balance { by_client, prefers_local }
    EndpointSpec { mode, balance, ports }
    ServiceSpec { name, labels, task, mode, update, rollback, endpoint }

    UpdateStatus { state, message, started, last_slot, started_at, completed_at }
    VirtualIp { network, addresses }
    Attachment { network, addresses, aliases }
    TaskStatus { state, message, error, exit_code, pid, at, applied, host_ports, sandbox_gone }

    RestartHistory { service, slot, spec_version, attempts, times, failures }
    RequestRecord { caller, request, body_hash, at, answer }
    RetiredNumber { number, until }
    Violation { field, message }
}

/// A record whose spec is shared by many rows: the spec's hash stands for it.
pub(crate) struct WithSpec<'a, T>(pub &'a T, pub &'a RowHash);

impl Canonical for WithSpec<'_, Service> {
    fn write(&self, out: &mut Vec<u8>) {
        let Service { id, meta, spec: _, previous, spec_version, ports, vips, update, removing, registry_auth } =
            self.0;
        id.write(out);
        meta.write(out);
        self.1.write(out);
        previous.write(out);
        spec_version.write(out);
        ports.write(out);
        vips.write(out);
        update.write(out);
        removing.write(out);
        registry_auth.write(out);
    }
}

impl Canonical for WithSpec<'_, Task> {
    fn write(&self, out: &mut Vec<u8>) {
        let Task {
            id,
            meta,
            service,
            slot,
            node,
            spec: _,
            spec_version,
            status,
            desired,
            desired_reason,
            stop_at,
            attachments,
            ingress,
            allocated,
            start_after,
            replaces,
            created,
            running_since,
        } = self.0;
        id.write(out);
        meta.write(out);
        service.write(out);
        slot.write(out);
        node.write(out);
        self.1.write(out);
        spec_version.write(out);
        status.write(out);
        desired.write(out);
        desired_reason.write(out);
        stop_at.write(out);
        attachments.write(out);
        ingress.write(out);
        allocated.write(out);
        start_after.write(out);
        replaces.write(out);
        created.write(out);
        running_since.write(out);
    }
}

impl Canonical for StackOutcome {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::NetworkCreated { name, id } => {
                out.push(0);
                name.write(out);
                id.write(out);
            }
            Self::ServiceCreated { name, id } => {
                out.push(1);
                name.write(out);
                id.write(out);
            }
            Self::ServiceUpdated { name, id, changed } => {
                out.push(2);
                name.write(out);
                id.write(out);
                changed.write(out);
            }
            Self::ServiceRemoved { name, id } => {
                out.push(3);
                name.write(out);
                id.write(out);
            }
            Self::NetworkRemoved { name, id } => {
                out.push(4);
                name.write(out);
                id.write(out);
            }
        }
    }
}

impl Canonical for Answer {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Done => out.push(0),
            Self::Node(id) => {
                out.push(1);
                id.write(out);
            }
            Self::Network(id) => {
                out.push(2);
                id.write(out);
            }
            Self::Service { id, version } => {
                out.push(3);
                id.write(out);
                version.write(out);
            }
            Self::Epoch(epoch) => {
                out.push(4);
                epoch.write(out);
            }
            Self::Stack(outcomes) => {
                out.push(5);
                outcomes.write(out);
            }
            Self::Tokens(tokens) => {
                out.push(6);
                tokens.write(out);
            }
        }
    }
}

impl Canonical for Refusal {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Invalid(violations) => {
                out.push(0);
                violations.write(out);
            }
            Self::NotFound { kind, name } => {
                out.push(1);
                kind.write(out);
                name.write(out);
            }
            Self::Conflict(text) => {
                out.push(2);
                text.write(out);
            }
            Self::Stale { kind, name, at, from } => {
                out.push(3);
                kind.write(out);
                name.write(out);
                at.write(out);
                from.write(out);
            }
            Self::Denied(text) => {
                out.push(4);
                text.write(out);
            }
            Self::Exhausted(text) => {
                out.push(5);
                text.write(out);
            }
            Self::Unsupported(text) => {
                out.push(6);
                text.write(out);
            }
        }
    }
}

impl Canonical for Result<Answer, Refusal> {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Ok(answer) => {
                out.push(0);
                answer.write(out);
            }
            Err(refusal) => {
                out.push(1);
                refusal.write(out);
            }
        }
    }
}
