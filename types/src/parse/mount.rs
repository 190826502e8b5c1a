//! `--mount`, the short volume syntax of compose files, and `tmpfs`.

use super::csv::split_csv;
use super::{ParseError, parse_bytes, parse_go_bool};
use crate::spec::{Mount, MountKind};

const MOUNT_ALLOWED: &str =
    "[type=volume|bind|tmpfs,][source=NAME|PATH,]target=PATH[,readonly][,bind-*|volume-*|tmpfs-* options]";
const VOLUME_ALLOWED: &str = "[NAME|PATH:]TARGET[:ro|rw|nocopy|PROPAGATION], e.g. data:/var/lib/data";
const TMPFS_ALLOWED: &str = "TARGET[:size=SIZE,mode=OCTAL], e.g. /run:size=64m";

/// Values of `bind-propagation`.
pub const PROPAGATIONS: [&str; 6] = ["rprivate", "private", "rshared", "shared", "rslave", "slave"];

/// Options of the short volume syntax that mean nothing here and that Docker passes over too.
const IGNORED_OPTIONS: [&str; 5] = ["z", "Z", "cached", "delegated", "consistent"];

/// A volume in the short syntax.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShortVolume {
    pub mount: Mount,
    /// Options without effect, for a warning.
    pub ignored: Vec<String>,
}

/// Reads `--mount`: comma-separated `key=value`.
///
/// # Errors
/// On an unknown key, a missing target, options of another mount type, and on what is not built
/// yet: types npipe, cluster and image, volume drivers other than local.
pub fn parse_mount(text: &str) -> Result<Mount, ParseError> {
    let error = |problem: String| ParseError::new(text, problem, MOUNT_ALLOWED);
    let mut mount = Mount::default();
    let mut groups = Vec::new();
    for field in split_csv(text).map_err(error)? {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.trim().to_ascii_lowercase(), Some(value)),
            None => (field.trim().to_ascii_lowercase(), None),
        };
        set(&mut mount, &key, value).map_err(error)?;
        if let Some((group, _)) = key.split_once('-') {
            groups.push((group.to_owned(), key));
        }
    }
    if mount.target.is_empty() {
        return Err(error("no target".into()));
    }
    let kind = match mount.kind {
        MountKind::Volume => "volume",
        MountKind::Bind => "bind",
        MountKind::Tmpfs => "tmpfs",
    };
    match groups.into_iter().find(|(group, _)| group != kind) {
        Some((_, key)) => Err(error(format!("option {key} does not go with type {kind}"))),
        None => Ok(mount),
    }
}

fn set(mount: &mut Mount, key: &str, value: Option<&str>) -> Result<(), String> {
    let flag = || match value {
        None => Ok(true),
        Some(text) => parse_go_bool(text).ok_or_else(|| format!("{key} is \"{text}\", not true or false")),
    };
    match key {
        "readonly" | "ro" => mount.read_only = flag()?,
        "bind-nonrecursive" => mount.bind.non_recursive = flag()?,
        "bind-create-src" => mount.bind.create_source = flag()?,
        "volume-nocopy" => mount.volume.no_copy = flag()?,
        _ => {
            let Some(value) = value else {
                return Err(format!("\"{key}\" is not KEY=VALUE"));
            };
            set_value(mount, key, value)?;
        }
    }
    Ok(())
}

fn set_value(mount: &mut Mount, key: &str, value: &str) -> Result<(), String> {
    match key {
        "type" => mount.kind = value.parse().map_err(|bad: ParseError| bad.problem)?,
        "source" | "src" => mount.source = value.into(),
        "target" | "dst" | "destination" => mount.target = value.into(),
        // A promise about other systems' file sharing; on Linux every value means the same.
        "consistency" => match value {
            "default" | "consistent" | "cached" | "delegated" => {}
            _ => return Err(format!("consistency is \"{value}\"")),
        },
        "bind-propagation" if PROPAGATIONS.contains(&value) => mount.bind.propagation = value.into(),
        "bind-propagation" => {
            return Err(format!("bind-propagation is \"{value}\", not one of {}", PROPAGATIONS.join(", ")));
        }
        "bind-recursive" => match value {
            "enabled" => mount.bind.non_recursive = false,
            "disabled" => mount.bind.non_recursive = true,
            "writable" | "readonly" => return Err(format!("bind-recursive={value} is not built yet")),
            _ => return Err(format!("bind-recursive is \"{value}\", not enabled or disabled")),
        },
        "volume-driver" if value == "local" => {}
        "volume-driver" => return Err(format!("volume driver \"{value}\" is not built yet, only local")),
        "volume-opt" => return Err("volume-opt is not built yet".into()),
        "volume-label" => {
            let (name, text) = value.split_once('=').unwrap_or((value, ""));
            mount.volume.labels.insert(name.into(), text.into());
        }
        "volume-subpath" => mount.volume.subpath = value.into(),
        "image-subpath" => return Err("mount type image is not built yet".into()),
        "tmpfs-size" => {
            mount.tmpfs.size =
                parse_bytes(value).map_err(|bad| format!("tmpfs-size is \"{value}\": {}", bad.problem))?
        }
        "tmpfs-mode" => {
            mount.tmpfs.mode =
                Some(octal(value).ok_or_else(|| format!("tmpfs-mode is \"{value}\", not an octal mode"))?)
        }
        _ => return Err(format!("unknown key \"{key}\"")),
    }
    Ok(())
}

fn octal(text: &str) -> Option<u32> {
    u32::from_str_radix(text.strip_prefix("0o").unwrap_or(text), 8).ok().filter(|mode| *mode <= 0o7777)
}

/// Reads `SOURCE:TARGET[:OPTIONS]` or `TARGET`. A source that begins with `.`, `/` or `~` is a path
/// (the caller makes it absolute), another one names a volume.
///
/// # Errors
/// On an empty part, too many parts, or an unknown option.
pub fn parse_volume(text: &str) -> Result<ShortVolume, ParseError> {
    let error = |problem: String| ParseError::new(text, problem, VOLUME_ALLOWED);
    let mut volume = ShortVolume::default();
    let parts: Vec<&str> = text.split(':').collect();
    if parts.iter().any(|part| part.is_empty()) {
        return Err(error("a part between the colons is empty".into()));
    }
    let mount = &mut volume.mount;
    let options = match parts[..] {
        [target] => {
            mount.target = target.into();
            ""
        }
        [source, target] => {
            (mount.source, mount.target) = (source.into(), target.into());
            ""
        }
        [source, target, options] => {
            (mount.source, mount.target) = (source.into(), target.into());
            options
        }
        _ => return Err(error("too many colons".into())),
    };
    if mount.source.starts_with(['.', '/', '~']) {
        mount.kind = MountKind::Bind;
    }
    for option in options.split(',').filter(|o| !o.is_empty()) {
        match option {
            "ro" => mount.read_only = true,
            "rw" => mount.read_only = false,
            "nocopy" if mount.kind == MountKind::Volume => mount.volume.no_copy = true,
            _ if PROPAGATIONS.contains(&option) && mount.kind == MountKind::Bind => {
                mount.bind.propagation = option.into()
            }
            _ if IGNORED_OPTIONS.contains(&option) => volume.ignored.push(option.into()),
            _ => return Err(error(format!("unknown option \"{option}\""))),
        }
    }
    Ok(volume)
}

/// Reads `TARGET[:OPTIONS]` with options `size` and `mode`, as `tmpfs` in compose files.
///
/// # Errors
/// On an empty target or another option.
pub fn parse_tmpfs(text: &str) -> Result<Mount, ParseError> {
    let error = |problem: String| ParseError::new(text, problem, TMPFS_ALLOWED);
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    if target.is_empty() {
        return Err(error("no target".into()));
    }
    let mut mount = Mount { kind: MountKind::Tmpfs, target: target.into(), ..Mount::default() };
    for option in options.split(',').filter(|o| !o.is_empty()) {
        match option.split_once('=') {
            None if option == "ro" => mount.read_only = true,
            None if option == "rw" => mount.read_only = false,
            Some(("size", value)) => set_value(&mut mount, "tmpfs-size", value).map_err(error)?,
            Some(("mode", value)) => set_value(&mut mount, "tmpfs-mode", value).map_err(error)?,
            _ => return Err(error(format!("option \"{option}\" is not built yet"))),
        }
    }
    Ok(mount)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{BindOptions, TmpfsOptions, VolumeOptions};
    use crate::units::Bytes;
    use proptest::prelude::*;

    #[test]
    fn mounts_are_read_with_their_options() {
        let cases = [
            ("source=data,target=/data", Mount { source: "data".into(), target: "/data".into(), ..Mount::default() }),
            ("target=/cache", Mount { target: "/cache".into(), ..Mount::default() }),
            (
                "type=bind,src=/srv,dst=/srv,readonly,bind-propagation=rslave,bind-recursive=disabled,consistency=cached",
                Mount {
                    kind: MountKind::Bind,
                    source: "/srv".into(),
                    target: "/srv".into(),
                    read_only: true,
                    bind: BindOptions { propagation: "rslave".into(), non_recursive: true, create_source: false },
                    ..Mount::default()
                },
            ),
            (
                "type=tmpfs,destination=/run,tmpfs-size=64m,tmpfs-mode=0755,ro=false",
                Mount {
                    kind: MountKind::Tmpfs,
                    target: "/run".into(),
                    tmpfs: TmpfsOptions { size: Bytes(64 << 20), mode: Some(0o755) },
                    ..Mount::default()
                },
            ),
            (
                "type=volume,source=a,target=/a,volume-driver=local,\"volume-label=k=v,w\",volume-nocopy=true,volume-subpath=x/y",
                Mount {
                    source: "a".into(),
                    target: "/a".into(),
                    volume: VolumeOptions {
                        no_copy: true,
                        labels: [("k".to_string(), "v,w".to_string())].into(),
                        subpath: "x/y".into(),
                    },
                    ..Mount::default()
                },
            ),
        ];
        for (text, mount) in cases {
            assert_eq!(parse_mount(text), Ok(mount), "{text}");
        }
    }

    #[test]
    fn bad_mounts_say_what_is_wrong() {
        for (text, problem) in [
            ("type=volume,source=a", "no target"),
            ("type=npipe,target=/a", "mount type npipe is not built yet"),
            ("type=cluster,target=/a", "mount type cluster is not built yet"),
            ("type=image,target=/a", "mount type image is not built yet"),
            ("type=nfs,target=/a", "unknown mount type"),
            ("target=/a,volume-driver=nfs", "volume driver \"nfs\" is not built yet, only local"),
            ("target=/a,volume-opt=o=addr", "volume-opt is not built yet"),
            ("type=bind,src=/a,target=/a,volume-nocopy", "option volume-nocopy does not go with type bind"),
            ("type=tmpfs,target=/a,tmpfs-mode=99", "tmpfs-mode is \"99\", not an octal mode"),
            (
                "target=/a,bind-propagation=odd",
                "bind-propagation is \"odd\", not one of rprivate, private, rshared, shared, rslave, slave",
            ),
            ("target=/a,readonly=maybe", "readonly is \"maybe\", not true or false"),
            ("target=/a,target", "\"target\" is not KEY=VALUE"),
            ("target=/a,colour=red", "unknown key \"colour\""),
            ("type=bind,src=/a,target=/a,bind-recursive=readonly", "bind-recursive=readonly is not built yet"),
        ] {
            assert_eq!(parse_mount(text).unwrap_err().problem, problem, "{text}");
        }
    }

    #[test]
    fn short_volumes_tell_paths_from_names() {
        for (text, kind, source, target, read_only) in [
            ("/cache", MountKind::Volume, "", "/cache", false),
            ("data:/data", MountKind::Volume, "data", "/data", false),
            ("data:/data:ro", MountKind::Volume, "data", "/data", true),
            ("./web:/srv:rw", MountKind::Bind, "./web", "/srv", false),
            ("/var/run/docker.sock:/sock:ro", MountKind::Bind, "/var/run/docker.sock", "/sock", true),
            ("~/x:/x", MountKind::Bind, "~/x", "/x", false),
        ] {
            let mount = parse_volume(text).unwrap().mount;
            assert_eq!(
                (mount.kind, mount.source.as_str(), mount.target.as_str(), mount.read_only),
                (kind, source, target, read_only),
                "{text}"
            );
        }
        assert_eq!(parse_volume("/a:/a:rslave,z").unwrap().ignored, ["z"]);
        assert_eq!(parse_volume("/a:/a:rslave,z").unwrap().mount.bind.propagation, "rslave");
        assert!(parse_volume("a:/a:nocopy").unwrap().mount.volume.no_copy);
    }

    #[test]
    fn bad_short_volumes_say_what_is_wrong() {
        for (text, problem) in [
            ("", "a part between the colons is empty"),
            ("a::ro", "a part between the colons is empty"),
            ("a:/b:ro:x", "too many colons"),
            ("a:/b:fast", "unknown option \"fast\""),
            ("a:/b:rslave", "unknown option \"rslave\""),
        ] {
            assert_eq!(parse_volume(text).unwrap_err().problem, problem, "{text}");
        }
    }

    #[test]
    fn tmpfs_takes_size_and_mode() {
        let mount = parse_tmpfs("/run:size=1m,mode=1777").unwrap();
        assert_eq!((mount.target.as_str(), mount.tmpfs.size, mount.tmpfs.mode), ("/run", Bytes(1 << 20), Some(0o1777)));
        assert_eq!(parse_tmpfs("/run:noexec").unwrap_err().problem, "option \"noexec\" is not built yet");
        assert_eq!(parse_tmpfs(":size=1m").unwrap_err().problem, "no target");
    }

    proptest! {
        #[test]
        fn no_text_makes_a_reader_panic(text in "[a-z0-9/:=,.\"~-]{0,40}") {
            let _ = parse_mount(&text);
            let _ = parse_volume(&text);
            let _ = parse_tmpfs(&text);
        }
    }
}
