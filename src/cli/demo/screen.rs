//! What the demo shows: rows cut to the width of the terminal, sentences wrapped to it, commands as they are.

use std::io::{self, IsTerminal};

use anstyle::{AnsiColor, Style};
use unicode_width::UnicodeWidthChar;

use crate::cli::failure::Failure;
use crate::cli::output::print;

/// Sentences are wrapped here where there is no terminal, and on a wider one.
const SENTENCE_COLUMNS: usize = 100;
/// A terminal that says it is narrower is not believed.
const COLUMNS_MIN: usize = 20;

const HEADING: Style = Style::new().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Cyan))).bold();
const COMMAND: Style = Style::new().bold();

/// Standard output.
pub struct Screen {
    /// `None` where there is no terminal: nothing is cut there.
    columns: Option<usize>,
}

impl Screen {
    pub fn new() -> Screen {
        let out = io::stdout();
        let size = out.is_terminal().then(|| rustix::termios::tcgetwinsize(&out).ok()).flatten();
        let columns = size.map(|size| usize::from(size.ws_col)).filter(|columns| *columns >= COLUMNS_MIN);
        Screen { columns }
    }

    /// True if a person sees it.
    pub fn is_terminal() -> bool {
        io::stdout().is_terminal()
    }

    /// An empty line, and a heading.
    ///
    /// # Errors
    /// As [`Failure::unwritten`].
    pub fn heading(&self, text: &str) -> Result<(), Failure> {
        print("")?;
        for line in wrapped(text, self.sentence_columns()) {
            print(&format!("{HEADING}{line}{HEADING:#}"))?;
        }
        Ok(())
    }

    /// A sentence.
    ///
    /// # Errors
    /// As [`Failure::unwritten`].
    pub fn say(&self, text: &str) -> Result<(), Failure> {
        wrapped(text, self.sentence_columns()).iter().try_for_each(|line| print(line))
    }

    /// A row of columns, cut where the terminal ends.
    ///
    /// # Errors
    /// As [`Failure::unwritten`].
    pub fn row(&self, row: &str) -> Result<(), Failure> {
        match self.columns {
            Some(columns) => print(&cut(row, columns)),
            None => print(row),
        }
    }

    /// A command, whole: it is to be copied.
    ///
    /// # Errors
    /// As [`Failure::unwritten`].
    pub fn command(&self, command: &str) -> Result<(), Failure> {
        print(&format!("{COMMAND}$ {command}{COMMAND:#}"))
    }

    fn sentence_columns(&self) -> usize {
        self.columns.unwrap_or(SENTENCE_COLUMNS).min(SENTENCE_COLUMNS)
    }
}

/// Cuts a line to so many columns. What was cut is shown as `…`; colours are kept, and end with the line.
fn cut(line: &str, columns: usize) -> String {
    let mut kept = String::with_capacity(line.len());
    let (mut taken, mut at_limit) = (0, 0);
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        if character == '\u{1b}' {
            // A colour takes no column.
            kept.push(character);
            for part in characters.by_ref() {
                kept.push(part);
                if part.is_ascii_alphabetic() {
                    break;
                }
            }
            continue;
        }
        taken += character.width().unwrap_or(0);
        if taken < columns {
            at_limit = kept.len() + character.len_utf8();
        }
        if taken > columns {
            kept.truncate(at_limit);
            kept.push('…');
            if line.contains('\u{1b}') {
                kept.push_str("\u{1b}[0m");
            }
            return kept;
        }
        kept.push(character);
    }
    kept
}

/// Breaks a text between words. A word that is longer than a line has one of its own.
fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut taken = 0;
    for word in text.split(' ') {
        let width: usize = word.chars().map(|character| character.width().unwrap_or(0)).sum();
        if taken > 0 && taken + 1 + width > columns {
            lines.push(String::new());
            taken = 0;
        }
        if let Some(line) = lines.last_mut() {
            if taken > 0 {
                line.push(' ');
                taken += 1;
            }
            line.push_str(word);
            taken += width;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_takes_no_more_columns_than_there_are() {
        assert_eq!(cut("abcdef", 6), "abcdef");
        assert_eq!(cut("abcdefg", 6), "abcde…");
        assert_eq!(cut("日本語の人", 6), "日本…", "such a character takes two columns");
        assert_eq!(cut("日本語", 6), "日本語");
        assert_eq!(cut("", 6), "");
    }

    #[test]
    fn colours_take_no_column_and_end_where_a_row_is_cut() {
        let green = "\u{1b}[32mabcdef\u{1b}[0m";
        assert_eq!(cut(green, 6), green);
        assert_eq!(cut(green, 4), "\u{1b}[32mabc…\u{1b}[0m");
    }

    #[test]
    fn a_sentence_is_broken_between_words() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("a /long/path/of/a/file b", 8), ["a", "/long/path/of/a/file", "b"]);
        assert_eq!(wrapped("", 8), [""]);
    }
}
