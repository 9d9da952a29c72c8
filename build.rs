//! Hands the commit to `--version`. It is that of the package if this is one, else the one that git has checked out
//! here, else `unknown`. A debug build does not ask git: each commit would build it again.

#![allow(clippy::print_stdout, reason = "cargo reads standard output")]

use std::path::Path;
use std::process::Command;
use std::{env, fs};

/// `cargo package` writes it beside the manifest.
const PACKAGED: &str = ".cargo_vcs_info.json";
/// Where functions lie in the program of a release. A package does not have it.
const HOT_FUNCTIONS: &str = "deploy/release/hot-functions.ld";

fn main() {
    // A build script that names no file runs again after every change of any file.
    println!("cargo::rerun-if-changed=build.rs");
    // `deploy/release/compile` tells the linker, but not cargo.
    if Path::new(HOT_FUNCTIONS).exists() {
        println!("cargo::rerun-if-changed={HOT_FUNCTIONS}");
    }
    let commit = packaged().or_else(checked_out).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=SCIMTAIL_COMMIT={commit}");
}

/// The commit from which the package was made.
fn packaged() -> Option<String> {
    let text = fs::read_to_string(PACKAGED).ok()?;
    println!("cargo::rerun-if-changed={PACKAGED}");
    let after = text.split_once("\"sha1\"")?.1;
    let commit = after.split('"').nth(1)?;
    is_commit(commit).then(|| commit.to_owned())
}

/// The commit that git has checked out in this folder. Without `.git` here, git would answer for a folder above.
fn checked_out() -> Option<String> {
    if !Path::new(".git").exists() || env::var_os("PROFILE").is_none_or(|profile| profile != "release") {
        return None;
    }
    let commit = git(&["rev-parse", "HEAD"])?;
    // HEAD changes with the branch, its log and the file of the branch with each commit. The file may be packed, and
    // the log may be switched off. Only what is there is named, because a missing file lets this run at each build.
    let branch = git(&["symbolic-ref", "--quiet", "HEAD"]);
    for name in ["HEAD", "logs/HEAD"].into_iter().chain(branch.as_deref()) {
        if let Some(file) = git(&["rev-parse", "--git-path", name]).filter(|file| Path::new(file).exists()) {
            println!("cargo::rerun-if-changed={file}");
        }
    }
    is_commit(&commit).then_some(commit)
}

fn git(arguments: &[&str]) -> Option<String> {
    let folder = env::var_os("CARGO_MANIFEST_DIR")?;
    let output = Command::new("git").current_dir(folder).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
}

fn is_commit(text: &str) -> bool {
    text.len() >= 40 && text.chars().all(|c| c.is_ascii_hexdigit())
}
