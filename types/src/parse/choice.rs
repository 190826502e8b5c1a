//! Words of which one is chosen: modes, conditions, orders.

use std::str::FromStr;

use super::ParseError;
use crate::spec::{
    Availability, Control, EndpointMode, FailureAction, MountKind, PublishMode, RestartCondition, Role, UpdateOrder,
};

macro_rules! choice {
    ($kind:ty, $what:literal, { $($word:literal => $value:expr),+ $(,)? } $(, later { $($later:literal),+ })?) => {
        impl FromStr for $kind {
            type Err = ParseError;

            fn from_str(text: &str) -> Result<Self, ParseError> {
                const WORDS: &[&str] = &[$($word),+];
                match text.to_ascii_lowercase().as_str() {
                    $($word => Ok($value),)+
                    $($(word @ $later => Err(ParseError::new(
                        text,
                        format!(concat!($what, " {} is not built yet"), word),
                        WORDS.join(", "),
                    )),)+)?
                    _ => Err(ParseError::new(text, concat!("unknown ", $what), WORDS.join(", "))),
                }
            }
        }
    };
}

choice!(RestartCondition, "restart condition", {
    "none" => Self::None,
    "on-failure" => Self::OnFailure,
    "any" => Self::Any,
});
choice!(UpdateOrder, "update order", { "stop-first" => Self::StopFirst, "start-first" => Self::StartFirst });
choice!(FailureAction, "failure action", { "pause" => Self::Pause }, later { "continue", "rollback" });
choice!(EndpointMode, "endpoint mode", { "vip" => Self::Vip, "dnsrr" => Self::DnsRr });
choice!(PublishMode, "publish mode", { "ingress" => Self::Ingress, "host" => Self::Host });
choice!(MountKind, "mount type", {
    "volume" => Self::Volume,
    "bind" => Self::Bind,
    "tmpfs" => Self::Tmpfs,
}, later { "npipe", "cluster", "image" });
choice!(Role, "role", { "worker" => Self::Worker, "manager" => Self::Manager });
choice!(Availability, "availability", {
    "active" => Self::Active,
    "pause" => Self::Pause,
    "drain" => Self::Drain,
});
choice!(Control, "control", { "none" => Self::None, "read" => Self::Read, "full" => Self::Full });

/// The word of `--mode` and `deploy.mode`: how the number of tasks is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModeWord {
    Replicated,
    Global,
}

choice!(ModeWord, "mode", { "replicated" => Self::Replicated, "global" => Self::Global },
    later { "replicated-job", "global-job" });

/// The word of `--endpoint-affinity`: what holds the connections of one client together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AffinityWord {
    None,
    ClientIp,
}

choice!(AffinityWord, "endpoint affinity", { "none" => Self::None, "client-ip" => Self::ClientIp });

/// The word of `--endpoint-prefer`: which tasks are taken first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PreferWord {
    Any,
    Local,
}

choice!(PreferWord, "endpoint preference", { "any" => Self::Any, "local" => Self::Local });

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_read_back() {
        for value in [RestartCondition::None, RestartCondition::OnFailure, RestartCondition::Any] {
            assert_eq!(value.to_string().parse(), Ok(value));
        }
        for value in [UpdateOrder::StopFirst, UpdateOrder::StartFirst] {
            assert_eq!(value.to_string().parse(), Ok(value));
        }
        for value in [EndpointMode::Vip, EndpointMode::DnsRr] {
            assert_eq!(value.to_string().parse(), Ok(value));
        }
        for value in [Availability::Active, Availability::Pause, Availability::Drain] {
            assert_eq!(value.to_string().parse(), Ok(value));
        }
        for value in [Control::None, Control::Read, Control::Full] {
            assert_eq!(value.to_string().parse(), Ok(value));
        }
    }

    #[test]
    fn words_that_come_later_are_refused_by_name() {
        assert_eq!(
            "rollback".parse::<FailureAction>().unwrap_err().to_string(),
            "\"rollback\": failure action rollback is not built yet\n       allowed: pause"
        );
        assert_eq!(
            "global-job".parse::<ModeWord>().unwrap_err().to_string(),
            "\"global-job\": mode global-job is not built yet\n       allowed: replicated, global"
        );
        assert_eq!(
            "always".parse::<RestartCondition>().unwrap_err().to_string(),
            "\"always\": unknown restart condition\n       allowed: none, on-failure, any"
        );
    }
}
