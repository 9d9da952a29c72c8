//! The program as a person runs it: a configuration file, arguments, output, exit code.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use tempfile::TempDir;

use crate::services::Services;

pub const TOKEN_VARIABLE: &str = "SCIMTAIL_TEST_TOKEN";

/// A configuration in a separate directory.
pub struct Program {
    directory: TempDir,
    pub prefix: String,
    token: String,
}

/// One `[[account]]`.
pub struct AccountText {
    pub name: &'static str,
    pub provider: &'static str,
    pub base_url: String,
    /// Further lines, as in the file.
    pub more: &'static str,
}

impl Program {
    /// `partitions` stays small: every partition costs the broker files.
    pub fn new(services: &Services, prefix: &str, token: &str, interval: &str, accounts: &[AccountText]) -> Program {
        let mut text = format!(
            r#"
[kafka]
brokers = ["{}"]
topic_prefix = "{prefix}"
partitions = 2
replication = 1
[registry]
url = "{}"
[defaults]
interval = "{interval}"
"#,
            services.bootstrap, services.registry
        );
        for AccountText { name, provider, base_url, more } in accounts {
            text.push_str(&format!(
                "[[account]]\nname = \"{name}\"\nprovider = \"{provider}\"\nbase_url = \"{base_url}\"\n{more}\n"
            ));
            if !more.contains("token_") {
                text.push_str(&format!("token_env = \"{TOKEN_VARIABLE}\"\n"));
            }
        }
        Program::with_text(prefix, token, &text)
    }

    pub fn with_text(prefix: &str, token: &str, text: &str) -> Program {
        let directory = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(directory.path().join("scimtail.toml"), text).expect("a configuration file");
        Program { directory, prefix: prefix.to_owned(), token: token.to_owned() }
    }

    pub fn file(&self) -> PathBuf {
        self.directory.path().join("scimtail.toml")
    }

    pub fn topic(&self, suffix: &str) -> String {
        format!("{}.{suffix}", self.prefix)
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_scimtail"));
        command
            .current_dir(self.directory.path())
            .args(arguments)
            .env(TOKEN_VARIABLE, &self.token)
            .env("USER", "tester")
            .stdin(Stdio::null());
        command
    }

    /// Runs to the end without blocking the test's own servers.
    pub async fn run(&self, arguments: &[&str]) -> Ended {
        let mut command = self.command(arguments);
        let output = tokio::task::spawn_blocking(move || command.output().expect("the program runs")).await;
        Ended::from(output.expect("the program was waited for"))
    }

    /// Runs to the end on a terminal of this width. Returns the exit code and what the terminal was sent, with plain line
    /// ends. `variables` are set beside those that allow colours.
    pub async fn on_terminal(&self, arguments: &[&str], columns: u16, variables: &[(&str, &str)]) -> (i32, String) {
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&controller).and_then(|()| unlockpt(&controller)).expect("it is ours");
        let size = Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&controller, size).expect("its size");
        let name = ptsname(&controller, Vec::new()).expect("its name");
        let terminal = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).expect("its other side");
        let mut command = self.command(arguments);
        command.env("TERM", "xterm").env_remove("NO_COLOR").env_remove("CLICOLOR").env_remove("CLICOLOR_FORCE");
        command.envs(variables.iter().copied());
        let error = terminal.try_clone().expect("the same side");
        let mut child = command.stdout(terminal).stderr(error).spawn().expect("the program starts");
        // The command keeps the other side open.
        drop(command);
        let shown = tokio::task::spawn_blocking(move || {
            let (mut shown, mut buffer) = (Vec::new(), [0; 4096]);
            let mut controller = File::from(controller);
            // Once no process has the other side open, Linux ends reads of a terminal with an error.
            while let Ok(bytes @ 1..) = controller.read(&mut buffer) {
                shown.extend_from_slice(&buffer[..bytes]);
            }
            let code = child.wait().expect("it ended").code().unwrap_or(-1);
            (code, String::from_utf8(shown).expect("UTF-8").replace("\r\n", "\n"))
        });
        shown.await.expect("the program was waited for")
    }

    pub fn spawn(&self, arguments: &[&str]) -> Child {
        let mut command = self.command(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts")
    }
}

/// The next line of a child's log that holds `text`.
pub fn await_line(child: &mut Child, text: &str) -> String {
    use std::io::{BufRead, BufReader};
    let mut log = child.stderr.take().expect("standard error is piped, and has no other reader");
    let found = loop {
        // Byte by byte, because nothing may be read ahead that the next call waits for.
        let mut line = String::new();
        let mut reader = BufReader::with_capacity(1, &mut log);
        assert_ne!(reader.read_line(&mut line).expect("a log in UTF-8"), 0, "it ended without `{text}`");
        if line.contains(text) {
            break line;
        }
    };
    child.stderr = Some(log);
    found
}

#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Ended {
        Ended {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Ended {
    /// Asserts that it ended with `code`, printed nothing to standard output, and said in one line what is wrong and
    /// what to do.
    pub fn refused(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        assert_eq!(self.out, "", "{self:?}");
        assert_eq!(self.err.lines().count(), 1, "{self:?}");
        for word in words {
            assert!(self.err.contains(word), "`{word}` is missing in {}", self.err);
        }
    }
}
