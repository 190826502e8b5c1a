//! One reading of tar for layers and archives.
//!
//! The `tar` crate frames the headers; long names and PAX records are read here, with bounds, and whatever two
//! parsers could read differently is refused: sizes that disagree, links with content, sparse files.

use std::io::{self, Read};

use tar::{Archive, EntryType, Header};

use super::limits::{PATH_MAX, TAR_EXTENSION_MAX};

/// What an entry makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    HardLink,
    Symlink,
    Directory,
    CharDevice,
    BlockDevice,
    Fifo,
}

/// One entry of an archive, long names and extended attributes included.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub path: Vec<u8>,
    pub link: Vec<u8>,
    pub kind: Kind,
    pub size: u64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds and nanoseconds since 1970.
    pub modified: (i64, i64),
    pub device: (u32, u32),
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Why an archive is refused.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The bytes could not be read, or are no tar.
    #[error("cannot read the archive")]
    Read(#[from] io::Error),
    /// An entry that could be read in two ways, or that nothing can be made of.
    #[error("entry \"{path}\" is refused: {reason}")]
    Refused {
        /// The entry's name, as far as it is printable.
        path: String,
        /// Why.
        reason: &'static str,
    },
}

impl TarError {
    pub(super) fn refused(path: &[u8], reason: &'static str) -> Self {
        Self::Refused { path: printable(path), reason }
    }
}

/// A name from an archive, safe to print: control characters escaped, at most 200 of them.
pub(super) fn printable(name: &[u8]) -> String {
    String::from_utf8_lossy(name).chars().take(200).flat_map(char::escape_debug).collect()
}

/// What extension headers say about the next entry.
#[derive(Default)]
struct Extension {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    modified: Option<(i64, i64)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    has_pax: bool,
    has_long_path: bool,
    has_long_link: bool,
}

impl Extension {
    fn is_empty(&self) -> bool {
        !(self.has_pax || self.has_long_path || self.has_long_link)
    }
}

/// Calls `visit` with each member of a tar stream and its content. What `visit` leaves unread is skipped.
pub(super) fn each_member<E: From<TarError>>(
    reader: impl Read,
    mut visit: impl FnMut(&Member, &mut dyn Read) -> Result<(), E>,
) -> Result<(), E> {
    let mut archive = Archive::new(reader);
    let mut extension = Extension::default();
    for entry in archive.entries().map_err(TarError::Read)?.raw(true) {
        let mut entry = entry.map_err(TarError::Read)?;
        let entry_type = entry.header().entry_type();
        if matches!(
            entry_type,
            EntryType::XHeader | EntryType::XGlobalHeader | EntryType::GNULongName | EntryType::GNULongLink
        ) {
            read_extension(&mut entry, &mut extension)?;
            continue;
        }
        let member = member(entry.header(), std::mem::take(&mut extension))?;
        visit(&member, &mut entry)?;
    }
    if !extension.is_empty() {
        return Err(TarError::refused(b"", "the archive ends after an extension header").into());
    }
    Ok(())
}

fn read_extension<R: Read>(entry: &mut tar::Entry<'_, R>, extension: &mut Extension) -> Result<(), TarError> {
    let name = entry.header().path_bytes().into_owned();
    let size = entry.header().entry_size()?;
    if size > TAR_EXTENSION_MAX {
        return Err(TarError::refused(&name, "its extension header is longer than 1 MiB"));
    }
    let mut content = Vec::new();
    entry.read_to_end(&mut content)?;
    if content.len() as u64 != size {
        return Err(TarError::refused(&name, "the archive ends in the middle of it"));
    }
    let repeated = || TarError::refused(&name, "two extension headers describe the same entry");
    match entry.header().entry_type() {
        EntryType::GNULongName if extension.has_long_path => Err(repeated()),
        EntryType::GNULongLink if extension.has_long_link => Err(repeated()),
        EntryType::XHeader if extension.has_pax => Err(repeated()),
        EntryType::GNULongName => {
            extension.has_long_path = true;
            extension.path.get_or_insert(until_nul(content));
            Ok(())
        }
        EntryType::GNULongLink => {
            extension.has_long_link = true;
            extension.link.get_or_insert(until_nul(content));
            Ok(())
        }
        EntryType::XHeader => {
            extension.has_pax = true;
            read_pax(&name, &content, extension)
        }
        _ => {
            let mut global = Extension::default();
            read_pax(&name, &content, &mut global)?;
            let only_comments = global.path.is_none()
                && global.link.is_none()
                && global.size.is_none()
                && global.uid.is_none()
                && global.gid.is_none()
                && global.xattrs.is_empty();
            if only_comments {
                Ok(())
            } else {
                Err(TarError::refused(&name, "a global header may not describe entries"))
            }
        }
    }
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|byte| *byte == 0) {
        bytes.truncate(end);
    }
    bytes
}

/// Reads `LENGTH KEY=VALUE\n` records by their length: values may hold newlines and any other byte.
fn read_pax(name: &[u8], mut content: &[u8], extension: &mut Extension) -> Result<(), TarError> {
    let malformed = || TarError::refused(name, "its PAX header is malformed");
    while !content.is_empty() {
        let space = content.iter().take(8).position(|byte| *byte == b' ').ok_or_else(malformed)?;
        let length: usize =
            number(&content[..space]).and_then(|length| length.try_into().ok()).ok_or_else(malformed)?;
        if length <= space + 2 || length > content.len() || content[length - 1] != b'\n' {
            return Err(malformed());
        }
        let record = &content[space + 1..length - 1];
        content = &content[length..];
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(malformed)?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        let whole = || if value.is_empty() { Ok(None) } else { number(value).map(Some).ok_or_else(malformed) };
        match key {
            b"path" => extension.path = (!value.is_empty()).then(|| value.to_vec()),
            b"linkpath" => extension.link = (!value.is_empty()).then(|| value.to_vec()),
            b"size" => extension.size = whole()?,
            b"uid" => extension.uid = whole()?,
            b"gid" => extension.gid = whole()?,
            b"mtime" => extension.modified = time(value),
            _ if key.starts_with(b"GNU.sparse.") => {
                return Err(TarError::refused(name, "sparse files are not supported"));
            }
            _ => {
                if let Some(xattr) = key.strip_prefix(b"SCHILY.xattr.") {
                    extension.xattrs.retain(|(given, _)| given != xattr);
                    extension.xattrs.push((xattr.to_vec(), value.to_vec()));
                }
            }
        }
    }
    Ok(())
}

fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// `[-]SECONDS[.FRACTION]`; an unreadable time is no time, which harms nobody.
fn time(value: &[u8]) -> Option<(i64, i64)> {
    let text = std::str::from_utf8(value).ok()?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let nanoseconds: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    let (seconds, nanoseconds) = (seconds.parse::<i64>().ok()?, nanoseconds.parse::<i64>().ok()?);
    if text.starts_with('-') && nanoseconds > 0 {
        return Some((seconds.checked_sub(1)?, 1_000_000_000 - nanoseconds));
    }
    Some((seconds, nanoseconds))
}

fn member(header: &Header, extension: Extension) -> Result<Member, TarError> {
    let path = extension.path.unwrap_or_else(|| header.path_bytes().into_owned());
    let refused = |reason| TarError::refused(&path, reason);
    let kind = match header.entry_type() {
        EntryType::Regular | EntryType::Continuous if path.ends_with(b"/") => Kind::Directory,
        EntryType::Regular | EntryType::Continuous => Kind::File,
        EntryType::Link => Kind::HardLink,
        EntryType::Symlink => Kind::Symlink,
        EntryType::Directory => Kind::Directory,
        EntryType::Char => Kind::CharDevice,
        EntryType::Block => Kind::BlockDevice,
        EntryType::Fifo => Kind::Fifo,
        EntryType::GNUSparse => return Err(refused("sparse files are not supported")),
        _ => return Err(refused("its type is unknown")),
    };
    let link = match kind {
        Kind::HardLink | Kind::Symlink => {
            let link = extension.link.or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned));
            link.filter(|link| !link.is_empty()).ok_or_else(|| refused("it links to nothing"))?
        }
        _ => Vec::new(),
    };
    for name in [&path, &link] {
        if name.len() > PATH_MAX {
            return Err(refused("its path is longer than 4096 bytes"));
        }
        if name.contains(&0) {
            return Err(refused("its path has a NUL byte"));
        }
    }
    let size = header.entry_size()?;
    if extension.size.is_some_and(|claimed| claimed != size) {
        return Err(refused("its header and its PAX record name different sizes"));
    }
    if kind != Kind::File && size != 0 {
        return Err(refused("only a file may have content"));
    }
    let owner = |claimed: Option<u64>, field: &[u8], own: io::Result<u64>| -> Result<u32, TarError> {
        let id = match claimed {
            Some(id) => id,
            None if is_blank(field) => 0,
            None => own?,
        };
        // The last number means "leave it" to chown.
        u32::try_from(id).ok().filter(|id| *id != u32::MAX).ok_or_else(|| refused("its owner is out of range"))
    };
    let device = match kind {
        Kind::CharDevice | Kind::BlockDevice => {
            let (major, minor) = (header.device_major()?, header.device_minor()?);
            major.zip(minor).ok_or_else(|| refused("its device number is missing"))?
        }
        _ => (0, 0),
    };
    let fields = header.as_old();
    let own_time = || header.mtime().ok().and_then(|seconds| i64::try_from(seconds).ok()).map(|seconds| (seconds, 0));
    Ok(Member {
        link,
        kind,
        size,
        mode: if is_blank(&fields.mode) { 0 } else { header.mode()? & 0o7777 },
        uid: owner(extension.uid, &fields.uid, header.uid())?,
        gid: owner(extension.gid, &fields.gid, header.gid())?,
        modified: extension.modified.or_else(own_time).unwrap_or((0, 0)),
        device,
        xattrs: extension.xattrs,
        path,
    })
}

/// Some writers leave numbers out: every reader takes that for 0.
fn is_blank(field: &[u8]) -> bool {
    field.iter().all(|byte| matches!(byte, 0 | b' '))
}

/// Splits a member's path into its parts. Absolute paths lose their slash, as in GNU tar; `..` is refused.
pub(super) fn parts(path: &[u8]) -> Result<Vec<&[u8]>, TarError> {
    let mut parts = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(TarError::refused(path, "\"..\" would leave its folder")),
            _ if part.len() > 255 => {
                return Err(TarError::refused(path, "a part of its path is longer than 255 bytes"));
            }
            _ => parts.push(part),
        }
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pax(records: &[u8]) -> Result<Extension, TarError> {
        let mut extension = Extension::default();
        read_pax(b"x", records, &mut extension).map(|()| extension)
    }

    #[test]
    fn pax_values_are_read_by_length_not_by_line() {
        let read = pax(b"29 SCHILY.xattr.user.a=b\nc=d\n18 path=some/name\n16 mtime=-1.250\n").expect("read");
        assert_eq!(read.xattrs, [(b"user.a".to_vec(), b"b\nc=d".to_vec())]);
        assert_eq!(read.path.as_deref(), Some(&b"some/name"[..]));
        assert_eq!(read.modified, Some((-2, 750_000_000)));
    }

    #[test]
    fn malformed_pax_records_are_refused() {
        for records in [
            &b"5 a=b\n"[..],
            b"99 a=b\n",
            b"6 a=b ",
            b"6 abc\n",
            b"0 a=b\n",
            b"-6 a=b\n",
            b"+6 a=b\n",
            b"x",
            b"18446744073709551615 a=b\n",
            b"10 size=-1\n",
        ] {
            assert!(pax(records).is_err(), "{}", printable(records));
        }
        assert!(pax(b"6 a=b\n").is_ok());
    }

    #[test]
    fn parts_never_leave_the_folder() {
        assert_eq!(parts(b"./a//b/").expect("parts"), [&b"a"[..], b"b"]);
        assert_eq!(parts(b"/etc/passwd").expect("parts"), [&b"etc"[..], b"passwd"]);
        assert!(parts(b"./").expect("parts").is_empty());
        for path in [&b"../x"[..], b"a/../../x", b"/..", b".."] {
            assert!(parts(path).is_err());
        }
    }
}
