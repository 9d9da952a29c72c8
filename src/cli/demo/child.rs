//! scimtail as other processes: the service that the demo starts, kills and starts again, and the commands it shows.

use std::fs::File;
use std::path::Path;
use std::process::{ExitStatus, Output, Stdio};
use std::time::Duration;

use tokio::process::{Child, ChildStdin, Command};

use crate::cli::failure::{Exit, Failure};
use crate::demo::World;

/// For the service to end by itself; a little longer than it takes at most.
const STOP_WAIT: Duration = Duration::from_secs(10);
/// Beside the configuration.
const LOG_FILE: &str = "scimtail.log";

/// `run`, as a process of its own.
pub struct Service {
    child: Child,
    /// The service ends when this is closed, so also if this process is killed.
    stdin: Option<ChildStdin>,
}

fn cannot(what: &str, error: &std::io::Error) -> Failure {
    Failure::new(Exit::Failed, format!("{what}: {error}"))
}

/// This program, with the configuration of the demo.
fn program(file: &Path) -> Result<Command, Failure> {
    let program = std::env::current_exe().map_err(|error| cannot("this program is not found", &error))?;
    let mut command = Command::new(program);
    // In a group of its own: Ctrl-C reaches the demo, which then ends the others in order.
    command.env("SCIMTAIL_CONFIG", file).kill_on_drop(true).process_group(0);
    Ok(command)
}

impl Service {
    /// # Errors
    /// The process does not start.
    pub fn start(world: &World) -> Result<Service, Failure> {
        let path = world.folder().join(LOG_FILE);
        let log = File::options().create(true).append(true).open(path).map_err(|error| cannot(LOG_FILE, &error))?;
        let mut command = program(&world.file)?;
        command.args(["run", "--end-with-stdin"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log);
        let mut child = command.spawn().map_err(|error| cannot("scimtail run does not start", &error))?;
        let stdin = child.stdin.take();
        Ok(Service { child, stdin })
    }

    /// The process id; 0 after its end.
    pub fn id(&self) -> u32 {
        self.child.id().unwrap_or(0)
    }

    /// Resolves when the process ends.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub async fn ended(&mut self) -> Result<ExitStatus, Failure> {
        self.child.wait().await.map_err(|error| cannot("scimtail run cannot be waited for", &error))
    }

    /// Kills it with SIGKILL.
    ///
    /// # Errors
    /// It had ended before.
    pub async fn kill(&mut self) -> Result<(), Failure> {
        self.child.kill().await.map_err(|error| cannot("scimtail run cannot be killed", &error))
    }

    /// Lets it end in order, and kills it if it does not.
    pub async fn stop(&mut self) {
        self.stdin = None;
        if tokio::time::timeout(STOP_WAIT, self.child.wait()).await.is_err() {
            // It may have ended by now.
            drop(self.child.kill().await);
        }
    }
}

/// The last line of the service's log, which says why it ended.
pub fn last_words(world: &World) -> String {
    let log = std::fs::read_to_string(world.folder().join(LOG_FILE)).unwrap_or_default();
    log.lines().last().unwrap_or("it has logged nothing").to_owned()
}

/// Runs a command to its end.
///
/// # Errors
/// It does not start.
pub async fn run(world: &World, arguments: &[&str]) -> Result<Output, Failure> {
    let mut command = program(&world.file)?;
    let output = command.args(arguments).stdin(Stdio::null()).output().await;
    output.map_err(|error| cannot(&format!("scimtail {} does not start", arguments.join(" ")), &error))
}
