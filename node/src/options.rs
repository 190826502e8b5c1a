//! How a daemon is set up: flags win over the file, the file over the defaults.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rswarm_runtime::DefaultCapabilities;
use serde::Deserialize;

/// Where the daemon keeps what must survive.
pub const DATA_DIR: &str = "/var/lib/rswarm";
/// Where its sockets and pinned namespaces are.
pub const RUN_DIR: &str = "/run/rswarm";
/// The file that is read if it is there.
pub const CONFIG_FILE: &str = "/etc/rswarm/config.toml";
/// The cgroup that containers are put under.
pub const CGROUP_PARENT: &str = "/rswarm";
/// Words that say by themselves how much is logged.
const LOG_LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
/// The largest configuration file that makes sense, in bytes.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// The flags of `rswarm daemon`; `None` and empty = not given.
#[derive(Clone, Debug, Default)]
pub struct DaemonOptions {
    pub data_dir: Option<PathBuf>,
    pub run_dir: Option<PathBuf>,
    pub config: Option<PathBuf>,
    /// `HOST[:PORT]`; loopback needs no flag.
    pub insecure_registries: Vec<String>,
    pub cgroup_parent: Option<String>,
    /// Empty = the embedded runtime; else `runc`, `crun` or a path.
    pub runtime: Option<String>,
    /// `KEY=VALUE`.
    pub labels: Vec<String>,
    /// `docker`: containers have Docker's 14 capabilities.
    pub compat_caps: Option<String>,
    /// No program of a container may gain privileges.
    pub no_new_privileges: Option<bool>,
    /// `error`, `warn`, `info`, `debug`, `trace`, `off`, or a filter of `tracing`.
    pub log_level: Option<String>,
}

/// What is wrong with flags or file.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    #[error("the configuration file {} cannot be read", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the configuration file {} is wrong: {reason}", path.display())]
    Parse { path: PathBuf, reason: String },
    #[error("invalid --label \"{0}\": allowed is KEY=VALUE with a non-empty key")]
    Label(String),
    #[error("invalid --cgroup-parent \"{0}\": allowed is an absolute path without \"..\", e.g. /rswarm")]
    CgroupParent(String),
    #[error("invalid --insecure-registry \"{0}\": allowed is HOST[:PORT]")]
    Registry(String),
    #[error(
        "invalid --runtime \"{0}\": allowed are \"embedded\", or an OCI runtime on PATH (runc, crun) or its absolute path"
    )]
    Runtime(String),
    #[error("invalid --compat-caps \"{0}\": allowed is docker, for its 14 default capabilities in place of 11")]
    CompatCaps(String),
    #[error(
        "invalid --log-level \"{text}\": \"{word}\" is no level\n       allowed: {}, or a filter such as info,rswarm_raft=debug",
        LOG_LEVELS.join(", ")
    )]
    LogLevel { text: String, word: String },
}

/// The file. An unknown key is an error: a typo must not be a silent default.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct File {
    data_dir: Option<PathBuf>,
    run_dir: Option<PathBuf>,
    insecure_registries: Vec<String>,
    cgroup_parent: Option<String>,
    runtime: Option<String>,
    labels: Vec<String>,
    compat_caps: Option<String>,
    no_new_privileges: Option<bool>,
    log_level: Option<String>,
}

/// The settings that hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub data_dir: PathBuf,
    pub run_dir: PathBuf,
    pub insecure_registries: Vec<String>,
    pub cgroup_parent: String,
    /// `None` = embedded.
    pub runtime: Option<PathBuf>,
    pub labels: BTreeMap<String, String>,
    pub default_capabilities: DefaultCapabilities,
    pub no_new_privileges: bool,
    pub log_level: String,
}

impl Settings {
    /// Reads the file, lays the flags over it, and checks all of it.
    ///
    /// # Errors
    /// The first thing that is wrong, by name.
    pub fn load(options: DaemonOptions) -> Result<Self, OptionsError> {
        let file = match &options.config {
            Some(path) => read(path)?,
            None if Path::new(CONFIG_FILE).exists() => read(Path::new(CONFIG_FILE))?,
            None => File::default(),
        };
        merge(options, file)
    }
}

fn read(path: &Path) -> Result<File, OptionsError> {
    let read_error = |source| OptionsError::Read { path: path.to_owned(), source };
    let length = std::fs::metadata(path).map_err(read_error)?.len();
    if length > CONFIG_BYTES_MAX {
        let reason = format!("{length} bytes; at most {CONFIG_BYTES_MAX} are allowed");
        return Err(OptionsError::Parse { path: path.to_owned(), reason });
    }
    let text = std::fs::read_to_string(path).map_err(read_error)?;
    toml::from_str(&text).map_err(|e| OptionsError::Parse { path: path.to_owned(), reason: e.to_string() })
}

fn merge(options: DaemonOptions, file: File) -> Result<Settings, OptionsError> {
    let mut registries = file.insecure_registries;
    registries.extend(options.insecure_registries);
    for registry in &registries {
        check_registry(registry)?;
    }
    let mut labels = BTreeMap::new();
    for text in file.labels.iter().chain(&options.labels) {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        if key.is_empty() {
            return Err(OptionsError::Label(text.clone()));
        }
        labels.insert(key.to_owned(), value.to_owned());
    }
    let cgroup_parent = options.cgroup_parent.or(file.cgroup_parent).unwrap_or_else(|| CGROUP_PARENT.into());
    if !cgroup_parent.starts_with('/') || cgroup_parent.split('/').any(|p| p == "..") || cgroup_parent == "/" {
        return Err(OptionsError::CgroupParent(cgroup_parent));
    }
    let log_level = options.log_level.or(file.log_level).unwrap_or_else(|| "info".into());
    check_log_level(&log_level)?;
    let default_capabilities = match options.compat_caps.or(file.compat_caps).as_deref() {
        None => DefaultCapabilities::Own,
        Some("docker") => DefaultCapabilities::Docker,
        Some(other) => return Err(OptionsError::CompatCaps(other.to_owned())),
    };
    Ok(Settings {
        data_dir: options.data_dir.or(file.data_dir).unwrap_or_else(|| DATA_DIR.into()),
        run_dir: options.run_dir.or(file.run_dir).unwrap_or_else(|| RUN_DIR.into()),
        insecure_registries: registries,
        cgroup_parent: cgroup_parent.trim_end_matches('/').to_owned(),
        runtime: options.runtime.or(file.runtime).map(|r| find_runtime(&r)).transpose()?.flatten(),
        labels,
        default_capabilities,
        no_new_privileges: options.no_new_privileges.or(file.no_new_privileges).unwrap_or(false),
        log_level,
    })
}

/// A filter would take any other word for the name of a part of the program, and log nothing else.
fn check_log_level(text: &str) -> Result<(), OptionsError> {
    let is_known = |word: &str| word.contains('=') || LOG_LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word));
    match text.split(',').map(str::trim).find(|word| !is_known(word)) {
        Some(word) => Err(OptionsError::LogLevel { text: text.to_owned(), word: word.to_owned() }),
        None => Ok(()),
    }
}

fn check_registry(text: &str) -> Result<(), OptionsError> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let port_ok = port.is_none_or(|p| p.parse::<u16>().is_ok_and(|p| p > 0));
    if host.is_empty() || host.contains(['/', ' ', '@']) || !port_ok {
        return Err(OptionsError::Registry(text.to_owned()));
    }
    Ok(())
}

fn find_runtime(name: &str) -> Result<Option<PathBuf>, OptionsError> {
    if name == "embedded" {
        return Ok(None);
    }
    let wrong = || OptionsError::Runtime(name.to_owned());
    if name.starts_with('/') {
        return if Path::new(name).is_file() { Ok(Some(name.into())) } else { Err(wrong()) };
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|p| p.is_file()).map(Some).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Result<File, String> {
        toml::from_str(text).map_err(|e| e.to_string())
    }

    #[test]
    fn flags_win_over_the_file_and_lists_add_up() {
        let parsed = file("data-dir = \"/a\"\ninsecure-registries = [\"one:5000\"]\nlabels = [\"a=1\", \"b=2\"]")
            .expect("valid");
        let options = DaemonOptions {
            data_dir: Some("/b".into()),
            insecure_registries: vec!["two".into()],
            labels: vec!["b=3".into()],
            ..DaemonOptions::default()
        };
        let settings = merge(options, parsed).expect("valid");
        assert_eq!(settings.data_dir, Path::new("/b"));
        assert_eq!(settings.insecure_registries, ["one:5000", "two"]);
        assert_eq!(settings.labels["b"], "3");
        assert_eq!(settings.run_dir, Path::new(RUN_DIR));
    }

    #[test]
    fn an_unknown_key_is_an_error_that_names_it() {
        let error = file("data_dir = \"/a\"").expect_err("a typo");
        assert!(error.contains("data_dir"), "{error}");
    }

    #[test]
    fn wrong_values_are_refused_by_name() {
        let with = |change: fn(&mut DaemonOptions)| {
            let mut options = DaemonOptions::default();
            change(&mut options);
            merge(options, File::default()).expect_err("wrong").to_string()
        };
        assert!(with(|o| o.cgroup_parent = Some("x".into())).contains("--cgroup-parent \"x\""));
        assert!(with(|o| o.insecure_registries = vec!["http://x".into()]).contains("--insecure-registry"));
        assert!(with(|o| o.runtime = Some("no-such-runtime".into())).contains("--runtime"));
        assert!(with(|o| o.labels = vec!["=1".into()]).contains("--label"));
        assert!(with(|o| o.compat_caps = Some("podman".into())).contains("--compat-caps \"podman\""));
        for (level, word) in [("loud", "loud"), ("info,loud", "loud"), ("", ""), ("4", "4"), ("debug,", "")] {
            let error = merge(DaemonOptions { log_level: Some(level.into()), ..Default::default() }, File::default());
            let text = error.expect_err(level).to_string();
            assert!(text.contains(&format!("invalid --log-level \"{level}\": \"{word}\" is no level")), "{text}");
            assert!(text.contains("error, warn, info, debug, trace, off, or a filter"), "{text}");
        }
    }

    #[test]
    fn levels_and_filters_are_taken() {
        for level in ["error", "WARN", "off", "info,rswarm_raft=debug", "rswarm_raft[span]=trace", "info, h2=off"] {
            let options = DaemonOptions { log_level: Some(level.into()), ..Default::default() };
            assert_eq!(merge(options, File::default()).expect(level).log_level, level);
        }
    }

    #[test]
    fn what_containers_may_is_set_by_flag_or_file() {
        let set = |options, text| {
            let settings = merge(options, file(text).expect("valid")).expect("valid");
            (settings.default_capabilities, settings.no_new_privileges)
        };
        assert_eq!(set(DaemonOptions::default(), ""), (DefaultCapabilities::Own, false));
        let text = "compat-caps = \"docker\"\nno-new-privileges = true";
        assert_eq!(set(DaemonOptions::default(), text), (DefaultCapabilities::Docker, true));
        let options = DaemonOptions { no_new_privileges: Some(false), ..DaemonOptions::default() };
        assert_eq!(set(options, text), (DefaultCapabilities::Docker, false), "the flag wins");
        let options = DaemonOptions { compat_caps: Some("docker".into()), ..DaemonOptions::default() };
        assert_eq!(set(options, "").0, DefaultCapabilities::Docker);
    }
}
