//! Compiles the protobuf files with protox: pure Rust, no protoc.

use std::error::Error;

const FILES: [&str; 3] = ["proto/types.proto", "proto/cluster.proto", "proto/control.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    for file in FILES {
        println!("cargo::rerun-if-changed={file}");
    }
    let set = protox::compile(FILES, ["proto"])?;
    tonic_prost_build::configure().btree_map(".").bytes(".").compile_fds(set)?;
    Ok(())
}
