//! The root file system and the bundle of a container, in the shim's own mount namespace.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::mount::MountPropagationFlags;

use super::Failure;
use crate::cgroup::Hierarchies;
use crate::image::mount_rootfs;
use crate::oci::{self, Resolved};
use crate::plan::{ContainerPlan, MountSource, NetNs};
use crate::rootfs::{Root, fill_volume};
use crate::state::{Backend, Order, StateDir};
use crate::user::{self, User};

const INIT_PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/init"));

/// Makes everything that `config.json` refers to, and `config.json`.
pub(super) fn prepare(dir: &StateDir, order: &Order) -> Result<(), Failure> {
    let plan = &order.plan;
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).map_err(io::Error::from)?;
    // What the host unmounts must go away here too, what is mounted here stays here.
    rustix::mount::mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::DOWNSTREAM)
        .map_err(|e| Failure::of("the mounts cannot be made private", &e))?;
    for folder in ["bundle/rootfs", "upper", "work", "files", "logs"] {
        let path = dir.join(folder);
        fs::create_dir_all(&path).map_err(|e| Failure::of(&path.display().to_string(), &e))?;
    }
    let rootfs = dir.rootfs();
    mount_rootfs(&plan.layers, &dir.join("upper"), &dir.join("work"), &rootfs, false)
        .map_err(|e| Failure::of("the root file system cannot be mounted", &e))?;
    let root = Root::open(&rootfs)?;
    let user = find_user(&root, plan)?;
    root.make_dirs(&plan.cwd)
        .map_err(|e| Failure::of(&format!("working directory \"{}\" cannot be made", plan.cwd), &e))?;
    let sources = sources(dir, &root, plan)?;
    write_files(dir, plan)?;

    if let NetNs::Path(path) = &plan.netns {
        fs::metadata(path).map_err(|e| Failure::of(&format!("network namespace {}", path.display()), &e))?;
    }
    let names: Vec<String> = Hierarchies::of_this_machine()?.v1_names().map(str::to_owned).collect();
    let resolved = Resolved {
        user: &user,
        sources: &sources,
        dir: &dir.0,
        cgroup: &order.cgroup,
        cgroup_names: &names,
        with_seccomp: matches!(order.backend, Backend::Oci(_)),
    };
    let config = oci::config(plan, &resolved);
    fs::write(dir.join("bundle/config.json"), config.to_string())?;
    Ok(())
}

/// Who the plan's user is in this root file system.
pub(super) fn find_user(root: &Root, plan: &ContainerPlan) -> Result<User, Failure> {
    named_user(root, &plan.user, &plan.groups)
}

/// Who `name` is in this root file system.
pub(super) fn named_user(root: &Root, name: &str, groups: &[String]) -> Result<User, Failure> {
    let read = |path: &str| root.text(path).map_err(|e| Failure::of(&format!("the image's {path}"), &e));
    user::resolve(name, groups, &read("/etc/passwd")?, &read("/etc/group")?).map_err(|e| Failure::other(e.to_string()))
}

/// The folder behind each mount, made and filled where the plan says so.
fn sources(dir: &StateDir, root: &Root, plan: &ContainerPlan) -> Result<Vec<PathBuf>, Failure> {
    let mut all = Vec::new();
    for (number, mount) in plan.mounts.iter().enumerate() {
        let context = |error: &dyn std::error::Error| Failure::of(&format!("mount {}", mount.target), error);
        let source = match &mount.source {
            MountSource::Tmpfs { .. } => PathBuf::new(),
            MountSource::Bind { path, create, .. } => {
                if *create && !path.exists() {
                    fs::create_dir_all(path).map_err(|e| context(&e))?;
                }
                if !path.exists() {
                    return Err(Failure::other(format!(
                        "mount {}: bind source path does not exist on this node: {}",
                        mount.target,
                        path.display()
                    )));
                }
                path.clone()
            }
            MountSource::Volume { name, path, subpath, copy } => {
                if !path.is_dir() {
                    return Err(Failure::other(format!("mount {}: no such volume: {name}", mount.target)));
                }
                if *copy {
                    fill_volume(root, &mount.target, path).map_err(|e| context(&e))?;
                }
                if subpath.is_empty() {
                    path.clone()
                } else {
                    pinned(dir, path, subpath, number).map_err(|e| context(&e))?
                }
            }
            MountSource::Anonymous { number, copy } => {
                let path = dir.join("volumes").join(number.to_string());
                fs::create_dir_all(&path).map_err(|e| context(&e))?;
                if *copy {
                    fill_volume(root, &mount.target, &path).map_err(|e| context(&e))?;
                }
                path
            }
        };
        all.push(source);
    }
    Ok(all)
}

/// A part of a volume, mounted aside by descriptor: whoever else writes the volume cannot redirect it by a symlink.
fn pinned(dir: &StateDir, volume: &Path, subpath: &str, number: usize) -> io::Result<PathBuf> {
    let fd = Root::open(volume)?
        .open_in(subpath, OFlags::PATH)
        .map_err(|e| io::Error::new(e.kind(), format!("volume-subpath \"{subpath}\": {e}")))?;
    let source = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let target = dir.join("files").join(format!("subpath-{number}"));
    if fs::metadata(&source)?.is_dir() {
        fs::create_dir_all(&target)?;
    } else {
        fs::File::create(&target)?;
    }
    rustix::mount::mount_bind(&source, &target)?;
    Ok(target)
}

/// `/etc/hosts` and the like, and our process 1.
fn write_files(dir: &StateDir, plan: &ContainerPlan) -> Result<(), Failure> {
    use std::os::unix::fs::PermissionsExt;
    let files = dir.join("files");
    fs::write(files.join("hosts"), &plan.hosts)?;
    fs::write(files.join("hostname"), format!("{}\n", plan.hostname))?;
    fs::write(files.join("resolv.conf"), &plan.resolv_conf)?;
    if plan.init {
        let path = files.join("init");
        fs::write(&path, INIT_PROGRAM)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}
