//! Writes the rows as a table for people, as JSON lines or as CSV.

use std::borrow::Cow;
use std::io::{self, BufWriter, IsTerminal, Write};

use clap::ValueEnum;

use super::listing::{Cell, Listing, What, columns};
use crate::cli::table::{self, Columns};
use crate::cli::time::exactly;
use crate::mapping::text::{clean, clean_json, clock};

/// Bytes between two writes.
const BUFFER: usize = 1 << 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A table for people
    Text,
    /// One JSON object a line
    Json,
    /// RFC 4180, with a header
    Csv,
}

pub struct Output<W> {
    out: W,
    /// True if `out` is a terminal: then characters from the directory that act on it are escaped.
    terminal: bool,
    columns: &'static [(&'static str, bool)],
    /// The last time that was written, and its text. Many rows in a row have the same time.
    since: (i64, String),
}

impl Output<BufWriter<io::StdoutLock<'static>>> {
    /// Writes all rows to standard output. `room`: of a line of the table.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub fn write(format: Format, what: What, listings: &[Listing<'_>], room: Option<usize>) -> io::Result<()> {
        let out = io::stdout().lock();
        let terminal = out.is_terminal();
        Output::new(BufWriter::with_capacity(BUFFER, out), terminal, what).all(format, listings, room)
    }
}

impl<W: Write> Output<W> {
    fn new(out: W, terminal: bool, what: What) -> Output<W> {
        Output { out, terminal, columns: columns(what), since: (0, String::new()) }
    }

    fn all(mut self, format: Format, listings: &[Listing<'_>], room: Option<usize>) -> io::Result<()> {
        match format {
            Format::Json => listings.iter().try_for_each(|listing| listing.each(|row| self.json(row)))?,
            Format::Csv => {
                let names: Vec<&str> = self.columns.iter().map(|(name, _)| *name).collect();
                writeln!(self.out, "{}", names.join(","))?;
                listings.iter().try_for_each(|listing| listing.each(|row| self.csv(row)))?;
            }
            Format::Text => {
                let names: Vec<Cell<'_>> = self.columns.iter().map(|(name, _)| Cell::Text(name)).collect();
                let mut columns = Columns::new(&self.table_cells(&names));
                for listing in listings {
                    listing.each(|row| {
                        columns.measure(&self.table_cells(row));
                        Ok::<(), io::Error>(())
                    })?;
                }
                let columns = columns.within(room);
                writeln!(self.out, "{}", columns.line(&self.table_cells(&names)))?;
                for listing in listings {
                    listing.each(|row| {
                        let cells = self.table_cells(row);
                        writeln!(self.out, "{}", columns.line(&cells))
                    })?;
                }
            }
        }
        self.out.flush()
    }

    fn json(&mut self, row: &[Cell<'_>]) -> io::Result<()> {
        for (index, ((name, _), cell)) in self.columns.iter().zip(row).enumerate() {
            let open = if index == 0 { "{" } else { "," };
            write!(self.out, "{open}\"{name}\":")?;
            match cell {
                Cell::Text(text) => json(&mut self.out, text, self.terminal)?,
                Cell::Way(groups) => {
                    for (place, (id, name)) in groups.iter().enumerate() {
                        self.out.write_all(if place == 0 { b"[{\"id\":" } else { b",{\"id\":" })?;
                        json(&mut self.out, id, self.terminal)?;
                        self.out.write_all(b",\"name\":")?;
                        json(&mut self.out, name, self.terminal)?;
                        self.out.write_all(b"}")?;
                    }
                    self.out.write_all(b"]")?;
                }
                Cell::Flag(flag) => write!(self.out, "{flag}")?,
                Cell::Count(count) => write!(self.out, "{count}")?,
                Cell::Nothing => self.out.write_all(b"null")?,
                Cell::Since(millis) => {
                    remember(&mut self.since, *millis);
                    write!(self.out, "\"{}\"", self.since.1)?;
                }
            }
        }
        self.out.write_all(b"}\n")
    }

    fn csv(&mut self, row: &[Cell<'_>]) -> io::Result<()> {
        for (index, ((name, _), cell)) in self.columns.iter().zip(row).enumerate() {
            if index > 0 {
                self.out.write_all(b",")?;
            }
            // Ids join rows with those of other systems, so they are written unchanged.
            let is_id = *name == "id" || name.ends_with("_id");
            let harmless = |text| if self.terminal { Cow::Owned(clean(text)) } else { Cow::Borrowed(text) };
            match cell {
                Cell::Text(text) => csv(&mut self.out, &harmless(text), is_id)?,
                Cell::Way(groups) => csv(&mut self.out, &harmless(&joined(groups)), false)?,
                Cell::Flag(flag) => write!(self.out, "{flag}")?,
                Cell::Count(count) => write!(self.out, "{count}")?,
                Cell::Nothing => {}
                Cell::Since(millis) => {
                    remember(&mut self.since, *millis);
                    self.out.write_all(self.since.1.as_bytes())?;
                }
            }
        }
        self.out.write_all(b"\n")
    }

    /// The cells of a row that the table for people has.
    fn table_cells(&self, row: &[Cell<'_>]) -> Vec<table::Cell> {
        let shown = self.columns.iter().zip(row).filter(|((_, in_table), _)| *in_table);
        shown.map(|(_, cell)| table::Cell::from(shown_text(cell))).collect()
    }
}

fn remember(last: &mut (i64, String), millis: i64) {
    if last.0 != millis {
        *last = (millis, exactly(millis));
    }
}

/// A cell as the table shows it.
fn shown_text<'a>(cell: &Cell<'a>) -> Cow<'a, str> {
    match cell {
        Cell::Text(text) => Cow::Borrowed(*text),
        Cell::Way(groups) => Cow::Owned(joined(groups)),
        Cell::Flag(true) => Cow::Borrowed("yes"),
        Cell::Flag(false) => Cow::Borrowed("no"),
        Cell::Count(count) => Cow::Owned(count.to_string()),
        Cell::Nothing => Cow::Borrowed(""),
        Cell::Since(millis) => Cow::Owned(clock(*millis).split(' ').next().unwrap_or_default().to_owned()),
    }
}

/// The names of groups on a way.
fn joined(groups: &[(&str, &str)]) -> String {
    let names: Vec<&str> = groups.iter().map(|(_, name)| *name).collect();
    names.join(" > ")
}

/// Writes a cell by RFC 4180. A `'` goes before a text that a spreadsheet would take for a formula, except in ids.
fn csv(out: &mut impl Write, text: &str, is_id: bool) -> io::Result<()> {
    let formula = !is_id && text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    if !formula && !text.contains([',', '"', '\n', '\r']) {
        return out.write_all(text.as_bytes());
    }
    let mark = if formula { "'" } else { "" };
    write!(out, "\"{mark}{}\"", text.replace('"', "\"\""))
}

/// Writes a JSON string. On a terminal, characters that act on it are written as JSON escapes.
fn json(out: &mut impl Write, text: &str, terminal: bool) -> io::Result<()> {
    if !terminal {
        return Ok(serde_json::to_writer(out, text)?);
    }
    out.write_all(clean_json(&serde_json::to_string(text)?).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::super::filter::Chosen;
    use super::*;
    use std::sync::Arc;

    use crate::account::Account;
    use crate::config::Config;
    use crate::directory::{Entry, Kind, Known, Membership, PackedPrincipal, Principal};

    const DAY: i64 = 86_400_000;

    fn account() -> Arc<Account> {
        let text = "[kafka]\nbrokers = [\"localhost:9092\"]\n[registry]\nurl = \"http://localhost:8081\"\n[[account]]\n\
                    name = \"acme\"\nprovider = \"chargebee\"\nbase_url = \"https://acme.example/scim/v2\"\ntoken_env = \"T\"\n";
        Config::parse("test", text).expect("a configuration").accounts[0].account.clone()
    }

    fn put(known: &mut Known, kind: Kind, id: &str, name: &str, active: Option<bool>) {
        let mut principal = Principal::new(id);
        match kind {
            Kind::User => principal.user_name = Some(name.to_owned()),
            Kind::Group => principal.display_name = Some(name.to_owned()),
        }
        principal.active = active;
        let packed = PackedPrincipal::pack(&principal);
        let entry = Entry {
            packed: packed.borrowed(),
            digest: 0,
            first_seen_at: DAY,
            changed_at: DAY,
            sequence: 0,
            missing_since: None,
            missing_walks: 0,
            members_unread: false,
        };
        known.put_principal(kind, id, &entry, None);
    }

    fn join(known: &mut Known, kind: Kind, id: &str, group: &str, direct: Option<bool>, first_seen_at: i64) {
        let membership = Membership { direct, first_seen_at, sequence: 0, digest: 0.into() };
        known.put_membership(group, (kind, id), membership);
    }

    fn known() -> Known {
        let mut known = Known::default();
        put(&mut known, Kind::User, "u1", "ann@acme.example", Some(true));
        put(&mut known, Kind::User, "u2", "=bob, \"the\" builder", Some(false));
        for (id, name) in [("g1", "Analysts"), ("g2", "CB/acme.com/ROLE/Admin"), ("g3", "Everyone"), ("g4", "Guests")] {
            put(&mut known, Kind::Group, id, name, None);
        }
        join(&mut known, Kind::User, "u1", "g1", None, DAY);
        join(&mut known, Kind::User, "u1", "g4", Some(false), DAY);
        join(&mut known, Kind::User, "u2", "g2", Some(true), 4 * DAY);
        // In a cycle.
        join(&mut known, Kind::Group, "g1", "g2", None, 2 * DAY);
        join(&mut known, Kind::Group, "g2", "g3", None, 3 * DAY);
        join(&mut known, Kind::Group, "g3", "g1", None, 0);
        known
    }

    fn written(format: Format, what: What) -> String {
        written_to(false, format, what, &known())
    }

    fn written_to(terminal: bool, format: Format, what: What, known: &Known) -> String {
        let account = account();
        let mut bytes = Vec::new();
        let written = Output::new(&mut bytes, terminal, what).all(
            format,
            &[Listing::of(what, &account, known, &Chosen::default())],
            None,
        );
        written.expect("a vector takes everything");
        String::from_utf8(bytes).expect("UTF-8")
    }

    #[test]
    fn access_is_told_with_names_directly_and_through_groups() {
        let expected = "\
account  principal               active  group                   kind  name   access  via                                since
acme     =bob, \"the\" builder     no      Analysts                             nested  CB/acme.com/ROLE/Admin > Everyone
acme     =bob, \"the\" builder     no      CB/acme.com/ROLE/Admin  role  Admin  direct                                     1970-01-05
acme     =bob, \"the\" builder     no      Everyone                             nested  CB/acme.com/ROLE/Admin             1970-01-05
acme     Analysts                        CB/acme.com/ROLE/Admin  role  Admin  direct                                     1970-01-03
acme     Analysts                        Everyone                             nested  CB/acme.com/ROLE/Admin             1970-01-04
acme     CB/acme.com/ROLE/Admin          Analysts                             nested  Everyone
acme     CB/acme.com/ROLE/Admin          Everyone                             direct                                     1970-01-04
acme     Everyone                        Analysts                             direct
acme     Everyone                        CB/acme.com/ROLE/Admin  role  Admin  nested  Analysts
acme     ann@acme.example        yes     Analysts                             direct                                     1970-01-02
acme     ann@acme.example        yes     CB/acme.com/ROLE/Admin  role  Admin  nested  Analysts                           1970-01-03
acme     ann@acme.example        yes     Everyone                             nested  Analysts > CB/acme.com/ROLE/Admin  1970-01-04
acme     ann@acme.example        yes     Guests                               nested                                     1970-01-02
";
        assert_eq!(written(Format::Text, What::Access), expected);
    }

    #[test]
    fn json_lines_have_ids_and_whole_times() {
        let lines = written(Format::Json, What::Access);
        let line = lines.lines().find(|line| line.contains("\"group_id\":\"g2\"") && line.contains("\"u1\""));
        let expected = r#"{"account":"acme","principal_type":"user","principal_id":"u1","principal":"ann@acme.example","active":true,"group_id":"g2","group":"CB/acme.com/ROLE/Admin","domain":"acme.com","kind":"role","name":"Admin","access":"nested","via":[{"id":"g1","name":"Analysts"}],"since":"1970-01-03T00:00:00.000Z"}"#;
        assert_eq!(line, Some(expected));
        for what in [What::Users, What::Groups, What::Memberships, What::Access] {
            for line in written(Format::Json, what).lines() {
                let object: serde_json::Value = serde_json::from_str(line).expect("JSON");
                assert_eq!(object.as_object().expect("an object").len(), columns(what).len(), "{line}");
            }
        }
        let circle = lines.lines().find(|line| line.contains("\"since\":null"));
        assert!(circle.is_some(), "an unknown time is null");
    }

    #[test]
    fn csv_has_a_header_and_no_cell_that_a_spreadsheet_takes_for_a_formula() {
        let users = written(Format::Csv, What::Users);
        let lines: Vec<&str> = users.lines().collect();
        assert_eq!(lines[0], "account,id,user_name,display_name,active,email,since");
        assert_eq!(lines[1], "acme,u1,ann@acme.example,,true,,1970-01-02T00:00:00.000Z");
        assert_eq!(lines[2], "acme,u2,\"'=bob, \"\"the\"\" builder\",,false,,1970-01-02T00:00:00.000Z");
        let memberships = written(Format::Csv, What::Memberships);
        assert_eq!(memberships.lines().nth(2), Some("acme,user,u1,g4,false,1970-01-02T00:00:00.000Z"));
        let groups = written(Format::Csv, What::Groups);
        assert_eq!(
            groups.lines().nth(2),
            Some("acme,g2,CB/acme.com/ROLE/Admin,acme.com,role,Admin,2,1970-01-02T00:00:00.000Z")
        );
    }

    #[test]
    fn ids_stand_in_csv_as_they_are_and_names_that_are_formulas_do_not() {
        let mut known = Known::default();
        for id in ["-Xy9", "=1+1", "+1", "@a", "a,\"b"] {
            put(&mut known, Kind::User, id, id, None);
            put(&mut known, Kind::Group, id, id, None);
            join(&mut known, Kind::User, id, id, None, DAY);
        }
        let rows = |what: What| {
            let csv = written_to(false, Format::Csv, what, &known);
            csv.lines().skip(1).map(str::to_owned).collect::<Vec<_>>()
        };
        assert!(rows(What::Users).contains(&"acme,-Xy9,\"'-Xy9\",,,,1970-01-02T00:00:00.000Z".to_owned()));
        assert!(rows(What::Groups).contains(&"acme,=1+1,\"'=1+1\",,,,1,1970-01-02T00:00:00.000Z".to_owned()));
        assert!(rows(What::Memberships).contains(&"acme,user,+1,+1,,1970-01-02T00:00:00.000Z".to_owned()));
        let quoted = "acme,user,\"a,\"\"b\",\"a,\"\"b\",,1970-01-02T00:00:00.000Z";
        assert!(rows(What::Memberships).contains(&quoted.to_owned()));
        let access = "acme,user,@a,\"'@a\",,@a,\"'@a\",,,,direct,,1970-01-02T00:00:00.000Z";
        assert!(rows(What::Access).contains(&access.to_owned()), "{:?}", rows(What::Access));
    }

    #[test]
    fn what_acts_on_a_terminal_is_spelled_out_there_and_written_as_it_is_elsewhere() {
        let mut known = Known::default();
        let name = "a\u{1b}[31m\u{9b}2J\u{202e}\"\\z\u{7f}é";
        put(&mut known, Kind::User, "u1", name, None);
        put(&mut known, Kind::Group, "g1", name, None);
        put(&mut known, Kind::Group, "g2", name, None);
        join(&mut known, Kind::User, "u1", "g1", None, DAY);
        join(&mut known, Kind::Group, "g1", "g2", None, DAY);
        for format in [Format::Text, Format::Csv, Format::Json] {
            let shown = written_to(true, format, What::Access, &known);
            let acts = |character: char| clean(&character.to_string()).len() > 4 && character != '\n';
            assert!(!shown.contains(acts) && shown.contains('é'), "{shown:?}");
        }
        for terminal in [true, false] {
            let lines = written_to(terminal, Format::Json, What::Access, &known);
            let nested: Vec<serde_json::Value> =
                lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
            assert!(nested.iter().any(|row| row["via"][0]["name"] == name && row["principal"] == name), "{lines}");
        }
        assert!(written_to(false, Format::Csv, What::Users, &known).contains('\u{202e}'));
    }
}
