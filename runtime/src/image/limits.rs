//! What an image may cost this host. A registry or an archive is not trusted: everything it can make us
//! store, read or remember has a bound here, and a refusal names the bound.

/// Bytes of one layer, unpacked. Docker's largest published images stay below 6 GiB a layer.
pub const LAYER_UNPACKED_MAX: u64 = 8 << 30;
/// Bytes of one blob as it is transferred: a layer that does not compress at all.
pub const BLOB_MAX: u64 = LAYER_UNPACKED_MAX;
/// How many unpacked bytes one packed byte may become. Real layers stay below 20, text below 100.
pub const LAYER_RATIO_MAX: u64 = 200;
/// Below this many unpacked bytes the ratio is not asked: a layer of zeros is legal while it is small.
pub const LAYER_RATIO_FLOOR: u64 = 128 << 20;
/// Files, folders and links of one layer, folders that we must make ourselves included.
pub const LAYER_ENTRIES_MAX: u64 = 1_000_000;
/// Bytes of one path in an archive: Linux' own `PATH_MAX`.
pub const PATH_MAX: usize = 4096;
/// Folders on top of each other. Removing a tree holds one descriptor a level, of 1,024 by default.
pub const DEPTH_MAX: usize = 256;
/// Bytes of folder names remembered until their times can be set, a layer.
pub const DIRECTORY_NAMES_MAX: usize = 64 << 20;
/// Bytes of one tar extension header (long names, extended attributes): xattrs end at 64 KiB each.
pub const TAR_EXTENSION_MAX: u64 = 1 << 20;
/// Bytes of a manifest, an index or a config: the registry specification's recommended bound.
pub const JSON_MAX: u64 = 4 << 20;
/// Bytes of an answer that is no manifest: tokens and error texts.
pub const ANSWER_MAX: u64 = 256 << 10;
/// Layers of one image: overlayfs takes 500 lower folders, and one is spare.
pub const LAYERS_MAX: usize = 499;
/// Bytes of a whole archive given to `image load`, decompressed.
pub const ARCHIVE_MAX: u64 = 64 << 30;
/// Files of an archive given to `image load`: four a layer in Docker's oldest layout, 40 images of the largest kind.
pub const ARCHIVE_ENTRIES_MAX: u64 = 100_000;
/// Symbolic links followed while making one path: the kernel's own bound.
pub const SYMLINKS_MAX: u32 = 40;

/// Blobs of all pulls in flight at once: Docker's `max-concurrent-downloads` is 3 an image.
pub const DOWNLOADS_AT_ONCE: usize = 6;
/// Tries of one request, and of one blob without any progress in between.
pub const TRIES_MAX: u32 = 4;
/// Pause before the second try, doubled for each next one, in milliseconds.
pub const RETRY_DELAY_MS: u64 = 250;
/// The longest `Retry-After` that is waited for, in seconds; a longer one is reported to the user instead.
pub const RETRY_AFTER_MAX_S: u64 = 30;
/// Time to reach a registry, in milliseconds: a dead address must not hold a command for minutes.
pub const CONNECT_TIMEOUT_MS: u64 = 10_000;
/// The longest silence of a registry in the middle of an answer, in milliseconds.
pub const READ_TIMEOUT_MS: u64 = 60_000;
/// Bytes between two progress reports of one blob.
pub const PROGRESS_STEP: u64 = 1 << 20;
/// Memory of the index' cache: it holds some KiB for each image.
pub const INDEX_CACHE: u64 = 16 << 20;

const _: () = assert!(LAYER_RATIO_FLOOR < LAYER_UNPACKED_MAX);
const _: () = assert!(LAYERS_MAX < 500);
const _: () = assert!(TAR_EXTENSION_MAX > 2 * PATH_MAX as u64);
const _: () = assert!(ARCHIVE_MAX > LAYER_UNPACKED_MAX);
