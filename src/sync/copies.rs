//! Copies of the events as JSON, for readers that cannot decode Avro.

use crate::avro::wire::ChangeEvent;
use crate::log::{Headers, Record, Topic};
use crate::mapping::{Change, ecs, ocsf, reduced};

/// JSON bytes of one copy. With its key and headers, a few thousand bytes, it has to fit into the 1,000,000 that librdkafka
/// sends by default, as every Avro record does (`directory::reduction`).
const COPY_BYTES_MAX: usize = 900_000;

/// A unit's events as JSON, beside the Avro and in its transaction: under the same key, with the same headers.
/// `records`: those of the events come first.
pub(super) fn copies(
    outputs: &[Topic],
    events: &[ChangeEvent],
    records: &[Record],
    reduced: &mut usize,
) -> Result<Vec<Record>, String> {
    let mut copies = Vec::new();
    for (event, record) in events.iter().zip(records) {
        for topic in outputs {
            let (json, is_reduced) = copy(*topic, event)?;
            *reduced += usize::from(is_reduced);
            let headers = record.headers.iter().fold(Headers::default(), |headers, (name, text)| {
                headers.and(name, if name == "content-type" { "application/json" } else { text })
            });
            copies.push(Record { topic: *topic, key: record.key.clone(), value: Some(json), headers });
        }
    }
    Ok(copies)
}

/// An event as JSON, and whether that leaves out what would make it too large.
fn copy(topic: Topic, event: &ChangeEvent) -> Result<(Vec<u8>, bool), String> {
    let json = |event: &ChangeEvent| {
        let change = Change::of(event).ok_or("an event of no known type")?;
        let value = match topic {
            Topic::EventsOcsf => ocsf::value(&change),
            Topic::EventsEcs => ecs::value(&change),
            _ => return Err(format!("{topic:?} carries no copies")),
        };
        Ok(value.to_string().into_bytes())
    };
    let whole = json(event)?;
    if whole.len() <= COPY_BYTES_MAX {
        return Ok((whole, false));
    }
    let without_values = json(&reduced::without_large_values(event))?;
    if without_values.len() <= COPY_BYTES_MAX {
        return Ok((without_values, true));
    }
    Ok((json(&reduced::without_attributes(event))?, true))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::avro::wire::{AttributeChange, User};

    /// However an event came about.
    #[test]
    fn a_copy_fits_whatever_makes_its_event_large() {
        let change = |number: usize, name: &str, value: &str| AttributeChange {
            attribute: format!("userType.{name}{number}"),
            old_value: Some(format!("\"{value}old\"")),
            new_value: Some(format!("\"{value}\"")),
        };
        let event = |changes: Vec<AttributeChange>| ChangeEvent {
            event_type: "user.updated".to_owned(),
            principal_type: "user".to_owned(),
            principal_id: "\u{1}".repeat(1_024),
            changed_attributes: changes.iter().map(|change| change.attribute.clone()).collect(),
            user: Some(User { id: "\u{1}".repeat(1_024), ..User::default() }),
            changes,
            ..ChangeEvent::default()
        };
        let one = |value: usize| event(vec![change(0, "", &"v".repeat(value))]);
        // Paths of control characters, which JSON escapes in six bytes each.
        let many = event((0..2_000).map(|number| change(number, &"\u{1}".repeat(50), "v")).collect());
        for topic in Topic::OUTPUTS {
            for (event, omitted) in [(one(10), ""), (one(2_000_000), "userType.0"), (many.clone(), "*")] {
                let (json, is_reduced) = copy(topic, &event).expect("it is mapped");
                assert!(json.len() <= COPY_BYTES_MAX, "{topic:?} {omitted}: {}", json.len());
                // ECS states no values of such attributes, and their paths once.
                assert_eq!(is_reduced, topic == Topic::EventsOcsf && !omitted.is_empty(), "{topic:?} {omitted}");
                let text = String::from_utf8(json).expect("UTF-8");
                let named = format!("\"omitted_attributes\":[\"{omitted}\"]");
                assert_eq!(text.contains(&named), is_reduced, "{topic:?} {omitted}");
            }
        }
    }
}
