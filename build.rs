//! Build script of `common` and `api`: compiles every `.proto` under the `proto/` folder of the package being built.
//!
//! Cargo runs it with that package's folder as the working directory. It needs no `protoc`: protox parses the files
//! and prost-build turns the descriptors into Rust. It must do nothing else; build identity does not belong here.

use std::path::{Path, PathBuf};
use std::{env, error, fs, io};

fn main() -> Result<(), Box<dyn error::Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("proto");
    println!("cargo:rerun-if-changed={}", root.display());
    let mut files = Vec::new();
    collect(&root, &mut files)?;
    files.sort();
    let descriptors = protox::compile(&files, [&root])?;
    // Secrets hide themselves, also inside a frame that is printed: their Debug is written by hand.
    prost_build::Config::new().bytes(["."]).skip_debug(["Secrets", "JoinRequest"]).compile_fds(descriptors)?;
    Ok(())
}

/// Adds all `.proto` files below `folder` to `files`.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|kind| kind == "proto") {
            files.push(path);
        }
    }
    Ok(())
}
