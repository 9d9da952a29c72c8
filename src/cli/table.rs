//! Tables for people. A column is as wide on the screen as its widest cell, and a line is no longer than the terminal.

use std::borrow::Cow;
use std::io;

use anstream::adapter::strip_str;
use anstyle::Style;
use rustix::termios::tcgetwinsize;
use unicode_width::UnicodeWidthStr;

use crate::mapping::text::clean;

/// Between two columns.
const GAP: &str = "  ";
/// No column is cut below this width, so that a cell still says something.
const COLUMN_MIN: usize = 8;
/// Stands where a text is cut.
const CUT: &str = "…";

/// The columns of the screen that a line may take; `None` if nothing limits it, as in a pipe. `wide`: the answer to
/// `--wide`.
pub fn room(wide: bool) -> Option<usize> {
    if wide {
        return None;
    }
    let size = tcgetwinsize(io::stdout()).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// The columns of the screen that a text takes. Letters of Chinese, Japanese and Korean take two, and so do emoji.
pub fn width(text: &str) -> usize {
    if text.is_ascii() { text.len() } else { UnicodeWidthStr::width(text) }
}

/// A line that may have styles, cut to the room.
pub fn fit(line: &str, room: Option<usize>) -> Cow<'_, str> {
    let Some(columns) = room else { return Cow::Borrowed(line) };
    let shown = if line.contains('\u{1b}') { strip_str(line).to_string().into() } else { Cow::Borrowed(line) };
    if width(&shown) > columns { Cow::Owned(cut(line, columns)) } else { Cow::Borrowed(line) }
}

/// Cuts a line that is too long for `columns`. Styles stay, so that they also end.
fn cut(line: &str, columns: usize) -> String {
    let mut left = columns.saturating_sub(width(CUT));
    let mut fitted = String::with_capacity(line.len());
    let mut is_cut = columns == 0;
    for (index, part) in line.split('\u{1b}').enumerate() {
        let (style, text) = match (index, part.find('m')) {
            (0, _) | (_, None) => ("", part),
            (_, Some(end)) => part.split_at(end + 1),
        };
        if !style.is_empty() {
            fitted.push('\u{1b}');
            fitted.push_str(style);
        }
        if is_cut {
            continue;
        }
        let head = head(text, left);
        fitted.push_str(head);
        left -= width(head);
        if head.len() < text.len() {
            fitted.push_str(CUT);
            is_cut = true;
        }
    }
    fitted
}

/// The longest beginning that fits.
fn head(text: &str, columns: usize) -> &str {
    let ends = text.char_indices().map(|(start, character)| start + character.len_utf8());
    let end = ends.take_while(|end| width(&text[..*end]) <= columns).last().unwrap_or(0);
    &text[..end]
}

/// A text that is safe on a terminal, and its style.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// `text` may come from a directory.
    pub fn new(text: &str) -> Cell {
        Cell { text: clean(text), style: Style::new() }
    }

    #[must_use]
    pub fn styled(self, style: Style) -> Cell {
        Cell { style, ..self }
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Cell {
        Cell::new(text.as_ref())
    }
}

/// How wide each column is. For tables that are too long to be kept; [`Table`] is for the others.
#[derive(Clone, Debug)]
pub struct Columns {
    widths: Vec<usize>,
    room: Option<usize>,
}

impl Columns {
    /// `names`: the cells of the heading.
    pub fn new(names: &[Cell]) -> Columns {
        let mut columns = Columns { widths: vec![0; names.len()], room: None };
        columns.measure(names);
        columns
    }

    /// Makes room for the cells of one row.
    pub fn measure(&mut self, row: &[Cell]) {
        for (columns, cell) in self.widths.iter_mut().zip(row) {
            *columns = (*columns).max(width(&cell.text));
        }
    }

    /// After all rows are measured: narrows the widest columns until a line fits.
    #[must_use]
    pub fn within(mut self, room: Option<usize>) -> Columns {
        self.room = room;
        let Some(room) = room else { return self };
        let gaps = GAP.len() * self.widths.len().saturating_sub(1);
        let fits = |most: &usize| gaps + self.widths.iter().map(|columns| columns.min(most)).sum::<usize>() <= room;
        let most = (COLUMN_MIN..=room).rev().find(fits).unwrap_or(COLUMN_MIN);
        for columns in &mut self.widths {
            *columns = (*columns).min(most);
        }
        self
    }

    /// One row, without spaces at its end.
    pub fn line(&self, row: &[Cell]) -> String {
        let mut line = String::new();
        // Behind a cell. Spaces that nothing follows are left out.
        let mut space = 0;
        for (Cell { text, style }, columns) in row.iter().zip(&self.widths) {
            let text = fit(text, Some(*columns));
            if !text.is_empty() {
                line.extend(std::iter::repeat_n(' ', space));
                line.push_str(&format!("{style}{text}{style:#}"));
                space = 0;
            }
            space += columns - width(&text) + GAP.len();
        }
        match fit(&line, self.room) {
            Cow::Owned(cut) => cut,
            Cow::Borrowed(_) => line,
        }
    }
}

/// A table with a heading.
#[derive(Clone, Debug)]
pub struct Table {
    names: Vec<Cell>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub fn new<C: Into<Cell>>(names: impl IntoIterator<Item = C>) -> Table {
        Table { names: names.into_iter().map(Into::into).collect(), rows: Vec::new() }
    }

    pub fn row<C: Into<Cell>>(&mut self, cells: impl IntoIterator<Item = C>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// The heading and the rows. `room`: as [`room()`] says.
    pub fn lines(&self, room: Option<usize>) -> Vec<String> {
        let mut columns = Columns::new(&self.names);
        self.rows.iter().for_each(|row| columns.measure(row));
        let columns = columns.within(room);
        std::iter::once(&self.names).chain(&self.rows).map(|row| columns.line(row)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anstyle::AnsiColor;

    fn table(rows: &[[&str; 3]]) -> Table {
        let mut table = Table::new(["account", "name", "since"]);
        rows.iter().for_each(|row| table.row(row));
        table
    }

    #[test]
    fn columns_line_up_by_what_the_screen_shows() {
        let rows = [["acme", "山田太郎", "a"], ["acme", "👍🏽 Team", "b"], ["acme", "e\u{301}", "c"], ["acme", "x", ""]];
        assert_eq!(
            table(&rows).lines(None),
            [
                "account  name      since",
                "acme     山田太郎  a",
                "acme     👍🏽 Team   b",
                "acme     e\u{301}         c",
                "acme     x"
            ]
        );
    }

    #[test]
    fn no_line_is_longer_than_the_screen_and_the_widest_columns_are_cut_first() {
        let long = "a.very.long.name@acme.example";
        let table =
            table(&[["acme-chargebee", long, "2026-11-21"], ["acme", "株式会社エーシーエムイー日本支社", "2026"]]);
        assert_eq!(
            table.lines(Some(44)),
            [
                "account         name              since",
                "acme-chargebee  a.very.long.nam…  2026-11-21",
                "acme            株式会社エーシ…   2026",
            ]
        );
        for room in 0..=60 {
            let lines = table.lines(Some(room));
            assert!(lines.iter().all(|line| width(line) <= room), "{room}: {lines:#?}");
        }
        assert!(table.lines(None)[1].contains(long), "a pipe gets everything");
    }

    #[test]
    fn a_cut_line_keeps_its_styles() {
        let red = Style::new().fg_color(Some(AnsiColor::Red.into()));
        let line = format!("{red}user.removed{red:#}  a.lee@acme.example");
        assert_eq!(fit(&line, Some(40)), line);
        assert_eq!(fit(&line, None), line);
        let cut = fit(&line, Some(20));
        assert_eq!(cut, format!("{red}user.removed{red:#}  a.lee…"));
        assert_eq!(fit(&line, Some(5)), format!("{red}user…{red:#}"));
        assert_eq!(width(&strip_str(&cut).to_string()), 20);
    }

    #[test]
    fn nothing_in_a_cell_acts_on_the_terminal() {
        let mut table = Table::new(["name"]);
        table.row(["a\u{1b}[2J\u{202e}b"]);
        assert_eq!(table.lines(None)[1], r"a\u{1b}[2J\u{202e}b");
    }
}
