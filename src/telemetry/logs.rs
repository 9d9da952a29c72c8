//! Log lines, as text or JSON.

use clap::ValueEnum;
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{Format, Json, JsonFields, Writer};
use tracing_subscriber::fmt::{self, FmtContext, FormatEvent, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// Names of log levels, from the fewest lines to the most.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// True for `info`, and for `scimtail=debug,rdkafka=trace`. [`EnvFilter`] takes any other word for a target, and then
/// logs everything of it and nothing else.
fn is_level(filter: &str) -> bool {
    filter.split(',').all(|directive| {
        let level = directive.rsplit_once('=').map_or(directive, |(_, level)| level);
        !directive.starts_with('=') && LEVELS.iter().any(|name| name.eq_ignore_ascii_case(level))
    })
}

/// Starts logging to standard error. `level` is a level, or a level for each target: `scimtail=debug,rdkafka=trace`.
///
/// # Errors
/// A level that is not understood.
pub fn start(format: LogFormat, level: &str) -> Result<(), String> {
    let refused = || {
        let names = LEVELS.join(", ");
        format!("log level {level:?} is not understood; → use one of {names}, or e.g. scimtail=debug,rdkafka=trace")
    };
    if !is_level(level) {
        return Err(refused());
    }
    // The request that failed reports once, with its account, why a certificate is not trusted.
    // AWS's crates print what their servers answer, unescaped.
    let filter = EnvFilter::try_new(format!("rustls_platform_verifier=off,aws=off,{level}")).map_err(|_| refused())?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // As for every other line: NO_COLOR, and what else decides it.
    let ansi = anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never;
    match format {
        LogFormat::Text => drop(builder.with_ansi(ansi).try_init()),
        LogFormat::Json => drop(builder.json().event_format(JsonLine::new()).try_init()),
    }
    Ok(())
}

/// A line of JSON: the event's fields, and beside them those of the spans around it. Of two fields of one name the
/// inner one counts; the crates that flatten spans print such a field twice.
struct JsonLine {
    line: Format<Json>,
}

impl JsonLine {
    fn new() -> JsonLine {
        let line = fmt::format().json().flatten_event(true).with_current_span(false).with_span_list(false);
        JsonLine { line: line.with_target(false) }
    }
}

impl<S> FormatEvent<S, JsonFields> for JsonLine
where
    S: Subscriber + for<'lookup> LookupSpan<'lookup>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, JsonFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        let mut line = String::new();
        self.line.format_event(context, Writer::new(&mut line), event)?;
        let spans = context.lookup_current().into_iter().flat_map(|span| span.scope());
        let fields: Vec<String> = spans
            .filter_map(|span| {
                span.extensions().get::<FormattedFields<JsonFields>>().map(|fields| fields.fields.clone())
            })
            .collect();
        if fields.is_empty() {
            return writer.write_str(&line);
        }
        let object = |text: &str| serde_json::from_str::<serde_json::Map<_, _>>(text).unwrap_or_default();
        let mut names: Vec<String> = object(&line).into_iter().map(|(name, _)| name).collect();
        writer.write_str(line.trim_end().strip_suffix('}').unwrap_or_default())?;
        for (name, value) in fields.iter().flat_map(|fields| object(fields)) {
            if !names.contains(&name) {
                write!(writer, ",{}:{value}", serde_json::Value::from(name.as_str()))?;
                names.push(name);
            }
        }
        writeln!(writer, "}}")
    }
}

/// A writer that keeps log lines, for tests.
#[cfg(test)]
pub mod lines {
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    pub struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Lines {
        pub fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing::{error_span, subscriber, warn};

    use super::lines::Lines;
    use super::*;

    #[test]
    fn a_level_is_one_of_six_names_or_one_for_each_target() {
        for level in ["info", "OFF", "scimtail=debug,rdkafka=trace", "info,scimtail::sync=debug", "[account]=trace"] {
            assert!(is_level(level), "{level}");
            assert!(EnvFilter::try_new(level).is_ok(), "{level}");
        }
        for level in ["infoo", "", "scimtail", "scimtail=", "=debug", "info,", "scimtail=debgu", "5", "scimtail:debug"]
        {
            assert!(!is_level(level), "{level}");
            let said = start(LogFormat::Text, level).expect_err("it is refused");
            assert!(said.contains("use one of off, error, warn, info, debug, trace"), "{said}");
        }
    }

    #[test]
    fn a_line_of_json_has_the_fields_of_its_event_and_of_the_spans_around_it() {
        let lines = Lines::default();
        let written = lines.clone();
        let builder = tracing_subscriber::fmt().with_writer(move || written.clone());
        subscriber::with_default(builder.json().event_format(JsonLine::new()).finish(), || {
            warn!(sync = 1, "outside");
            error_span!("shard", partition = 3).in_scope(|| {
                error_span!("account", account = "acme").in_scope(|| warn!(sync = 2, "{{inside}}"));
                warn!(partition = 4, "nearer");
            });
        });
        let text = lines.text();
        let read = |line| serde_json::from_str::<serde_json::Value>(line).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(read).collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert_eq!((&lines[0]["sync"], &lines[0]["partition"]), (&1.into(), &serde_json::Value::Null));
        assert_eq!((&lines[1]["message"], &lines[1]["level"]), (&"{inside}".into(), &"WARN".into()));
        assert_eq!(
            (&lines[1]["sync"], &lines[1]["partition"], &lines[1]["account"]),
            (&2.into(), &3.into(), &"acme".into())
        );
        assert_eq!(text.matches("\"partition\":").count(), 2, "each name once a line: {text}");
        assert_eq!(lines[2]["partition"], 4);
    }
}
