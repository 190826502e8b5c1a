//! What the disk does by itself: a write of one page and an fdatasync, one after the other.

use std::os::unix::fs::FileExt as _;
use std::time::Instant;

use anyhow::{Context as _, Result};

use crate::times;

/// Where the hosts of a lab keep their data.
const FOLDER: &str = "/var/lib";
const PAGE: usize = 4096;
const WRITES: u64 = 1000;

pub fn run() -> Result<()> {
    let folder = tempfile::Builder::new().prefix("rswarm-bench").tempdir_in(FOLDER)?;
    let file = std::fs::File::create(folder.path().join("pages")).context("cannot make a file")?;
    let page = vec![7; PAGE];
    // Written once before: what is measured is no growth of the file.
    file.write_all_at(&vec![0; PAGE * WRITES as usize], 0)?;
    file.sync_all()?;
    let mut measured = Vec::new();
    for number in 0..WRITES {
        let began = Instant::now();
        file.write_all_at(&page, number * PAGE as u64)?;
        file.sync_data()?;
        measured.push(began.elapsed());
    }
    times("fdatasync", "disk", &measured);
    Ok(())
}
