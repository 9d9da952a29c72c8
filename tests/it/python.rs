//! The Python of the tests: it runs a third-party SCIM server, and a reader of the topics that
//! shares no code with scimtail.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::services::{Supervised, built_once, require};

/// How long creating an empty virtual environment may take.
const ENVIRONMENT_MAX: Duration = Duration::from_secs(120);
/// How long pip may take to fetch and install 15 packages, once per target directory.
const INSTALL_MAX: Duration = Duration::from_secs(600);

/// The interpreter of a virtual environment with the packages of
/// `tests/services/requirements.txt`; the first call in a target directory creates it.
///
/// Run modules with `-m` rather than the scripts beside the interpreter: the environment was moved
/// into place when it was complete, and scripts name the place where they were installed.
///
/// # Panics
/// If it cannot be created, with what to install.
pub fn python() -> &'static Path {
    static PYTHON: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match PYTHON.get_or_init(|| create().map_err(|error| format!("{error:#}"))) {
        Ok(python) => python,
        Err(reason) => panic!("cannot create the Python environment of the tests: {reason}"),
    }
}

fn create() -> Result<PathBuf> {
    const HINT: &str = "The tests need Python 3.11 or newer with venv: apt-get install \
         python3-venv (Debian, Ubuntu), brew install python (macOS)";
    const REQUIREMENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/services/requirements.txt");
    let requirements = include_str!("../services/requirements.txt");
    let environment = built_once("python", requirements, |directory| {
        require("python3", HINT)?;
        let place = directory.display().to_string();
        let venv = Supervised::start("venv", directory, ["python3", "-m", "venv", &place])?
            .finish(ENVIRONMENT_MAX)
            .context(HINT)?;
        let interpreter = directory.join("bin/python").display().to_string();
        let install =
            [&interpreter, "-m", "pip", "install", "--disable-pip-version-check", "--requirement", REQUIREMENTS];
        let pip = Supervised::start("pip", directory, install)?;
        venv.leave();
        pip.finish(INSTALL_MAX).with_context(|| format!("pip cannot install {REQUIREMENTS}. {HINT}"))
    })?;
    Ok(environment.join("bin/python"))
}
