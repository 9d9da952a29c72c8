//! What differs between a principal as known and as read: pure.

use crate::directory::agreement::compatible;
use crate::directory::changes::{Event, EventType};
use crate::directory::entitlement::GroupPattern;
use crate::directory::packed::PackedPrincipal;
use crate::directory::principal::{AttributeChange, Kind, Principal};
use crate::directory::rules::Rules;
use crate::directory::status::Baseline;
use crate::json::json_text;

/// A principal that is new or differs from known.
pub(super) struct Changed {
    pub packed: PackedPrincipal,
    pub observed_at: i64,
    pub events: Vec<Event>,
    /// Attributes that it held and no longer holds.
    pub lost: Vec<String>,
    /// Since when no list shows it.
    pub missing_since: Option<i64>,
    /// Complete walks that left it out, where absence is the rule.
    pub missing_walks: u32,
}

impl Changed {
    pub fn silent(packed: PackedPrincipal, observed_at: i64) -> Changed {
        Changed { packed, observed_at, events: Vec::new(), lost: Vec::new(), missing_since: None, missing_walks: 0 }
    }
}

/// When and how a principal was looked at.
pub(super) struct Looked {
    pub observed_at: i64,
    pub modified_at: Option<i64>,
    pub composed_name: bool,
    pub otherwise: Otherwise,
}

/// Whether what is known was seen the same way. What GET shows is compared by [`Principal::as_shown_by_get`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Otherwise {
    No,
    /// By lists until GET found it hidden: what GET did not show stayed as the list had shown it.
    Hidden,
    /// By GET alone.
    NeverListed,
}

/// `None` where nothing that is compared differs; `last_modified` alone never does.
pub(super) fn compare(
    rules: &Rules,
    kind: Kind,
    old: Option<&Principal>,
    new: &Principal,
    looked: Looked,
) -> Option<Changed> {
    let Looked { observed_at, modified_at, composed_name, otherwise } = looked;
    let mut changed = Changed::silent(PackedPrincipal::pack(new), observed_at);
    // The server's own time counts only inside the window in which the change must lie.
    let occurred_at =
        modified_at.filter(|at| *at <= observed_at && rules.window_start.is_some_and(|start| *at >= start));
    let mut event = |event_type, changes| {
        changed.events.push(Event { changes, occurred_at, ..Event::new(event_type) });
    };
    let Some(old) = old else {
        // A silent baseline makes no events; a hundred thousand of them would only be dropped again.
        if rules.first_read(kind) != Some(Baseline::State) && !rules.repair {
            event(EventType::added(kind), Vec::new());
        }
        return Some(changed);
    };
    let mut same_time = new.clone();
    same_time.last_modified = old.last_modified;
    let pattern_only = kind == Kind::Group && pattern_decodes_differently(rules, new);
    if same_time == *old && !pattern_only {
        return None;
    }
    let mut changes = Principal::differences(old, new);
    changes.retain(|change| makes_events(rules, &change.attribute));
    changes.retain(|AttributeChange { attribute, old, new }| match (otherwise, old, new) {
        (Otherwise::No, ..) => true,
        _ if attribute == "active" => true,
        (_, Some(old), Some(new)) => !compatible(old, new),
        (Otherwise::NeverListed, ..) => false,
        (Otherwise::Hidden, ..) => true,
    });
    if composed_name {
        // It follows from `name`, which has a change of its own where it is listed. A stated name that is no longer
        // served is a change.
        let stated = old.display_name.is_some() && old.composed_name() != old.display_name;
        changes.retain(|change| change.attribute != "displayName" || stated);
    }
    let lost = changes.iter().filter(|change| change.new.is_none()).map(|change| change.attribute.clone());
    changed.lost = lost.collect();
    // Unknown → true is an update; only a known false can be enabled.
    let switch = changes
        .iter()
        .position(|change| change.attribute == "active" && (old.active.is_some() || new.active == Some(false)))
        .map(|index| changes.remove(index));
    if kind == Kind::Group {
        entitlement_changes(rules, old, new, &mut changes);
    }
    if !changes.is_empty() {
        event(EventType::updated(kind), changes);
    }
    if let Some(switch) = switch {
        let enabled = new.active == Some(true);
        event(if enabled { EventType::UserEnabled } else { EventType::UserDisabled }, vec![switch]);
    }
    Some(changed)
}

fn makes_events(rules: &Rules, path: &str) -> bool {
    let previous = rules.previous_attributes.as_ref();
    rules.attributes.covers(path) && previous.is_none_or(|previous| previous.covers(path))
}

/// Entitlements that differ only because the pattern changed are rewritten silently.
fn pattern_decodes_differently(rules: &Rules, group: &Principal) -> bool {
    let decode = |pattern: &Option<GroupPattern>| {
        pattern.as_ref().zip(group.display_name.as_deref()).and_then(|(pattern, name)| pattern.decode(name))
    };
    !rules.first_sync
        && rules.previous_pattern != rules.pattern
        && decode(&rules.previous_pattern) != decode(&rules.pattern)
}

fn entitlement_changes(rules: &Rules, old: &Principal, new: &Principal, changes: &mut Vec<AttributeChange>) {
    // They come from the name: if it is listed only now, or no longer, they are not news either.
    if !makes_events(rules, "displayName") {
        return;
    }
    let decode = |group: &Principal| {
        let name = group.display_name.as_deref()?;
        let entitlement = rules.pattern.as_ref()?.decode(name)?;
        Some([entitlement.domain, entitlement.kind, entitlement.name])
    };
    let (before, after) = (decode(old), decode(new));
    for (index, attribute) in ["entitlement_domain", "entitlement_kind", "entitlement_name"].into_iter().enumerate() {
        let value = |side: &Option<[String; 3]>| {
            side.as_ref().map(|parts| parts[index].as_str()).filter(|text| !text.is_empty()).map(json_text)
        };
        let (old, new) = (value(&before), value(&after));
        if old != new {
            changes.push(AttributeChange { attribute: attribute.to_owned(), old, new });
        }
    }
}
