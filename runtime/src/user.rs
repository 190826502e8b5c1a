//! Who a container's process is, by the image's own `/etc/passwd` and `/etc/group`.

/// A user, resolved to numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// For `HOME`.
    pub home: String,
}

/// The image has no such user or group.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    #[error("user \"{0}\" is not in the image's /etc/passwd and is no number")]
    NoUser(String),
    #[error("group \"{0}\" is not in the image's /etc/group and is no number")]
    NoGroup(String),
}

/// Resolves `name|uid[:group|gid]` (empty = root) and more `groups`, as Docker does.
///
/// Without a group the user's own group from `passwd` counts, and the groups that list the user; with one, only that.
///
/// # Errors
/// When a name is in neither file.
pub fn resolve(user: &str, groups: &[String], passwd: &str, group: &str) -> Result<User, UserError> {
    let (who, wanted_group) = user.split_once(':').unwrap_or((user, ""));
    let who = if who.is_empty() { "0" } else { who };
    let entry = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.len() >= 7 && (fields[0] == who || (who.parse::<u32>().is_ok() && fields[2] == who)));
    let (name, uid, own_gid, home) = match &entry {
        Some(fields) => (
            fields[0],
            fields[2].parse::<u32>().map_err(|_| UserError::NoUser(who.to_owned()))?,
            fields[3].parse::<u32>().unwrap_or(0),
            fields[5],
        ),
        None => ("", who.parse::<u32>().map_err(|_| UserError::NoUser(who.to_owned()))?, 0, ""),
    };
    let group_of = |wanted: &str| -> Result<u32, UserError> {
        entries(group)
            .find(|(name, ..)| *name == wanted)
            .map(|(_, gid, _)| gid)
            .or_else(|| wanted.parse::<u32>().ok())
            .ok_or_else(|| UserError::NoGroup(wanted.to_owned()))
    };
    let mut found = User { uid, gid: own_gid, groups: Vec::new(), home: home.to_owned() };
    if wanted_group.is_empty() {
        found.groups = entries(group)
            .filter(|(_, _, members)| !name.is_empty() && members.split(',').any(|m| m == name))
            .map(|(_, gid, _)| gid)
            .collect();
    } else {
        found.gid = group_of(wanted_group)?;
    }
    for wanted in groups {
        found.groups.push(group_of(wanted)?);
    }
    found.groups.sort_unstable();
    found.groups.dedup();
    if found.home.is_empty() {
        "/".clone_into(&mut found.home);
    }
    Ok(found)
}

/// Name, number and members of each group.
fn entries(group: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some((name, gid, fields.next().unwrap_or("")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33:web:/var/www:/bin/false\nbroken\n";
    const GROUP: &str = "root:x:0:\nweb:x:33:\nlogs:x:4:other,web\nwheel:x:10:root,web\n";

    fn check(user: &str, groups: &[&str], expected: Result<(u32, u32, &[u32], &str), &str>) {
        let groups: Vec<String> = groups.iter().map(|g| (*g).to_owned()).collect();
        let got = resolve(user, &groups, PASSWD, GROUP).map_err(|e| e.to_string());
        let expected = expected
            .map(|(uid, gid, groups, home)| User { uid, gid, groups: groups.to_vec(), home: home.to_owned() })
            .map_err(str::to_owned);
        assert_eq!(got, expected, "{user}");
    }

    #[test]
    fn names_and_numbers_resolve_as_docker_does() {
        check("", &[], Ok((0, 0, &[10], "/root")));
        check("web", &[], Ok((33, 33, &[4, 10], "/var/www")));
        check("33", &[], Ok((33, 33, &[4, 10], "/var/www")));
        check("1000", &[], Ok((1000, 0, &[], "/")));
        check("1000:1001", &[], Ok((1000, 1001, &[], "/")));
        check("web:logs", &[], Ok((33, 4, &[], "/var/www")));
        check("web:0", &["logs", "77"], Ok((33, 0, &[4, 77], "/var/www")));
        check("nobody", &[], Err("user \"nobody\" is not in the image's /etc/passwd and is no number"));
        check("0:staff", &[], Err("group \"staff\" is not in the image's /etc/group and is no number"));
        check("0", &["x"], Err("group \"x\" is not in the image's /etc/group and is no number"));
    }
}
