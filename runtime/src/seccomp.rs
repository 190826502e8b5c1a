//! The system call filter of containers, in the two forms that the backends want.
//!
//! The profile is Docker's (`seccomp.profile`), reduced to the 64-bit calls of this machine. Conditions look at the
//! capabilities that the container was *given*, never at the widened set with which a shim installs the filter.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use serde_json::{Value, json};

const PROFILE: &str = include_str!("seccomp.profile");
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;
/// `CLONE_NEW…` of all namespaces but time.
const CLONE_NAMESPACES: u64 = 0x7e02_0000;
/// Address families that have no business in a container: kernel crypto and hypervisor sockets.
const REFUSED_FAMILIES: [u64; 2] = [38, 40];
/// Personalities that change nothing but the reported machine or kernel version; the last one only asks.
const PERSONALITIES: [u64; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// The filter cannot be compiled.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    #[error("the system call filter is not known for this machine's architecture: {0}")]
    Backend(#[from] seccompiler::BackendError),
}

/// Programs to install in this order, right before execve.
#[derive(Clone, Debug)]
pub struct Filters {
    /// Makes clone3 look unimplemented, so that C libraries fall back to clone. None with SYS_ADMIN.
    pub no_clone3: Option<BpfProgram>,
    pub main: BpfProgram,
}

/// When a call is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Allowed {
    Always,
    Clone,
    Socket,
    Personality,
}

/// Calls that a container with these capabilities may make: name, number, condition.
fn allowed(capabilities: &[String]) -> impl Iterator<Item = (&'static str, i64, Allowed)> {
    let has = |wanted: &str| capabilities.iter().any(|c| c == wanted);
    PROFILE.lines().filter(|line| !line.starts_with('#')).filter_map(move |line| {
        let mut fields = line.split_whitespace();
        let (name, x86_64, aarch64) = (fields.next()?, fields.next()?, fields.next()?);
        let number = if cfg!(target_arch = "x86_64") { x86_64 } else { aarch64 }.parse().ok()?;
        let when = match fields.next() {
            None => Allowed::Always,
            Some("=socket") => Allowed::Socket,
            Some("=personality") => Allowed::Personality,
            Some(any) if any.split(',').any(has) => Allowed::Always,
            Some(_) if name == "clone" => Allowed::Clone,
            // The filter in front of this one answers clone3 with ENOSYS, which beats Allow.
            Some(_) if name == "clone3" => Allowed::Always,
            Some(_) => return None,
        };
        Some((name, number, when))
    })
}

/// Compiles the filters for a container that was given these capabilities (names without `CAP_`).
///
/// # Errors
/// On an architecture that the compiler does not know.
pub fn compile(capabilities: &[String]) -> Result<Filters, SeccompError> {
    let arch = std::env::consts::ARCH.try_into()?;
    let rules = |when: Allowed| -> Result<Vec<SeccompRule>, SeccompError> {
        let argument = |op, value| SeccompCondition::new(0, SeccompCmpArgLen::Dword, op, value);
        Ok(match when {
            Allowed::Always => Vec::new(),
            Allowed::Clone => {
                vec![SeccompRule::new(vec![argument(SeccompCmpOp::MaskedEq(CLONE_NAMESPACES), 0)?])?]
            }
            Allowed::Socket => {
                let all = REFUSED_FAMILIES.map(|family| argument(SeccompCmpOp::Ne, family));
                vec![SeccompRule::new(all.into_iter().collect::<Result<_, _>>()?)?]
            }
            Allowed::Personality => PERSONALITIES
                .into_iter()
                .map(|value| SeccompRule::new(vec![argument(SeccompCmpOp::Eq, value)?]))
                .collect::<Result<_, _>>()?,
        })
    };
    let mut main = BTreeMap::new();
    for (_, number, when) in allowed(capabilities) {
        main.insert(number, rules(when)?);
    }
    let main = SeccompFilter::new(main, SeccompAction::Errno(EPERM), SeccompAction::Allow, arch)?.try_into()?;
    let no_clone3 = if capabilities.iter().any(|c| c == "SYS_ADMIN") {
        None
    } else {
        let calls = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
        Some(SeccompFilter::new(calls, SeccompAction::Allow, SeccompAction::Errno(ENOSYS), arch)?.try_into()?)
    };
    Ok(Filters { no_clone3, main })
}

/// The same filter as `linux.seccomp` of an OCI `config.json`.
pub fn oci(capabilities: &[String]) -> Value {
    let (mut names, mut special) = (Vec::new(), Vec::new());
    let argument = |op: &str, value: u64| json!({"index": 0, "value": value, "op": op});
    for (name, _, when) in allowed(capabilities) {
        match when {
            Allowed::Always if name == "clone3" && !capabilities.iter().any(|c| c == "SYS_ADMIN") => special
                .push(json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS})),
            Allowed::Always => names.push(name),
            Allowed::Clone => special.push(json!({"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args":
                [{"index": 0, "value": CLONE_NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]})),
            Allowed::Socket => special.push(json!({"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args":
                REFUSED_FAMILIES.map(|family| argument("SCMP_CMP_NE", family))})),
            Allowed::Personality => special.extend(PERSONALITIES.map(|value| {
                json!({"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [argument("SCMP_CMP_EQ", value)]})
            })),
        }
    }
    special.push(json!({"names": names, "action": "SCMP_ACT_ALLOW"}));
    let arch = if cfg!(target_arch = "x86_64") { "SCMP_ARCH_X86_64" } else { "SCMP_ARCH_AARCH64" };
    json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": EPERM, "architectures": [arch], "syscalls": special})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(capabilities: &[&str]) -> Vec<(&'static str, Allowed)> {
        let capabilities: Vec<String> = capabilities.iter().map(|c| (*c).to_owned()).collect();
        allowed(&capabilities).map(|(name, _, when)| (name, when)).collect()
    }

    #[test]
    fn every_line_of_the_profile_has_its_numbers() {
        let mut seen = std::collections::BTreeSet::new();
        for line in PROFILE.lines().filter(|l| !l.starts_with('#')) {
            let fields: Vec<_> = line.split_whitespace().collect();
            assert!((3..=4).contains(&fields.len()), "{line}");
            assert!(fields[1..3].iter().all(|f| *f == "-" || f.parse::<i64>().is_ok()), "{line}");
            assert!(seen.insert(fields[0]), "{line} is there twice");
        }
        let number = |name| allowed(&[]).find(|(n, ..)| *n == name).map(|(_, number, _)| number);
        assert_eq!(number("openat2"), Some(libc::SYS_openat2));
        assert_eq!(number("execve"), Some(libc::SYS_execve));
    }

    #[test]
    fn capabilities_open_their_calls() {
        let plain = names(&[]);
        for closed in ["mount", "unshare", "setns", "bpf", "reboot", "kexec_load", "chroot", "mbind"] {
            assert!(plain.iter().all(|(n, _)| *n != closed), "{closed}");
        }
        assert!(plain.contains(&("clone", Allowed::Clone)));
        assert!(plain.contains(&("socket", Allowed::Socket)));
        assert!(names(&["SYS_CHROOT"]).contains(&("chroot", Allowed::Always)));
        let admin = names(&["SYS_ADMIN"]);
        for open in ["mount", "clone", "clone3", "bpf", "syslog"] {
            assert!(admin.contains(&(open, Allowed::Always)), "{open}");
        }
    }

    #[test]
    fn the_filters_compile_and_clone3_is_hidden_without_sys_admin() {
        assert!(compile(&[]).unwrap().no_clone3.is_some());
        assert!(compile(&["SYS_ADMIN".to_owned()]).unwrap().no_clone3.is_none());
    }

    #[test]
    fn the_oci_form_says_the_same() {
        let form = oci(&[]);
        let calls = form["syscalls"].as_array().unwrap();
        let of = |name: &str| {
            calls.iter().filter(|c| c["names"].as_array().unwrap().iter().any(|n| n == name)).collect::<Vec<_>>()
        };
        assert_eq!(of("clone3")[0]["errnoRet"], 38);
        assert_eq!(of("personality").len(), 5);
        assert_eq!(of("socket")[0]["args"].as_array().unwrap().len(), 2);
        assert_eq!(of("read")[0]["action"], "SCMP_ACT_ALLOW");
        assert!(of("mount").is_empty());
    }
}
