//! `completions` and `man`: what shells and manuals say of the commands, made from the definitions of the commands.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Command};
use clap_complete::Shell;
use clap_mangen::Man;

use super::failure::{Exit, Failure};
use super::output::print;
use crate::directory::Problem;

#[derive(Debug, Args)]
pub struct Completions {
    /// The shell that reads them
    shell: Shell,
}

#[derive(Debug, Args)]
pub struct Pages {
    /// Folder for the pages; it is made if it is missing
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Prints the completions of one shell.
///
/// # Errors
/// Standard output cannot be written.
pub fn completions(mut command: Command, options: &Completions) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    let name = command.get_name().to_owned();
    clap_complete::generate(options.shell, &mut command, name, &mut script);
    let mut out = io::stdout().lock();
    out.write_all(&script).and_then(|()| out.flush()).map_err(|error| Failure::unwritten(&error))?;
    Ok(Exit::Done)
}

/// Writes a manual page for the program and for each of its commands, and prints the names of the files.
///
/// # Errors
/// A file cannot be written.
pub fn pages(command: Command, options: &Pages) -> Result<Exit, Failure> {
    let folder = &options.folder;
    let failed = |path: &Path, error: io::Error| {
        let problem = Problem::new(format!("{} cannot be written ({})", path.display(), error.kind()));
        Failure::new(Exit::Failed, problem.with_remedy("name a folder that you may write"))
    };
    fs::create_dir_all(folder).map_err(|error| failed(folder, error))?;
    // The long version has the commit, and a page does not change with each commit.
    let mut command = command.disable_help_subcommand(true).long_version(None::<&str>);
    command.build();
    let source = format!("{} {}", command.get_name(), command.get_version().unwrap_or_default());
    for page in [&command].into_iter().chain(command.get_subcommands().filter(|command| !command.is_hide_set())) {
        let page = Man::new(page.clone()).source(&source).manual("scimtail");
        let path = folder.join(page.get_filename());
        File::create(&path).and_then(|mut file| written(&page, &mut file)).map_err(|error| failed(&path, error))?;
        print(&path.display().to_string())?;
    }
    Ok(Exit::Done)
}

/// The page under headings that manual pages have.
fn written(page: &Man, file: &mut File) -> io::Result<()> {
    let mut text = Vec::new();
    page.render(&mut text)?;
    let text = String::from_utf8(text).map_err(|_| io::ErrorKind::InvalidData)?;
    file.write_all(
        text.replace("\n.SH EXTRA\n", "\n.SH NOTES\n").replace("\n.SH SUBCOMMANDS\n", "\n.SH COMMANDS\n").as_bytes(),
    )
}
