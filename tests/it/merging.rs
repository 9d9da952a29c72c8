//! Rows of one id in one walk say what they say together, whatever their order.

use bytes::Bytes;
use proptest::prelude::*;
use proptest::strategy::Strategy as _;
use scimtail::directory::{
    AttributeList, Baseline, Diff, Id, KeyChange, Kind, Known, PackedPrincipal, Row, Rules, Strategy, Units,
};
use scimtail::scim::directory::parse_row;
use scimtail::scim::envelope::raw_row;
use scimtail::scim::resource::Reading;
use scimtail::source::{Page, Parsed};
use serde_json::{Value, json};

fn rules() -> Rules {
    Rules {
        baseline: Baseline::State,
        first: [true; 2],
        first_sync: true,
        first_memberships: true,
        shown_before: false,
        repair: false,
        previous_attributes: None,
        attributes: AttributeList::default(),
        previous_pattern: None,
        pattern: None,
        empty_members_are_none: true,
        get_shows_members: false,
        member_cap: None,
        publish_unlisted: false,
        window_start: None,
        not_before: 0,
    }
}

fn rows(kind: Kind, values: &[Value]) -> Vec<Row> {
    let reading = Reading::plain(AttributeList::default());
    let row = |value: &Value| {
        let parsed = parse_row(kind, &Page::default(), &raw_row(Bytes::from(value.to_string())), &reading);
        let Parsed::Resource(observed) = parsed else { panic!("{value} is a resource") };
        Row::Read(observed)
    };
    values.iter().map(row).collect()
}

/// What a first sync of these rows writes.
fn written(users: &[Value], groups: &[Value]) -> Vec<KeyChange> {
    let known = Known::new(1);
    let mut diff = Diff::against(&known, rules());
    diff.read_memberships_by(Strategy::List, false);
    for (kind, values) in [(Kind::User, users), (Kind::Group, groups)] {
        diff.begin_walk(kind);
        diff.take_page(kind, rows(kind, values));
    }
    diff.finish(&Default::default(), 0).units.into_iter().collect()
}

/// What is known of users once a first sync of these pages has written them, page by page if it streams.
fn known(pages: &[Vec<Value>], streams: bool) -> Vec<(Id, PackedPrincipal)> {
    let write = |known: &mut Known, units: Units| units.iter().for_each(|unit| known.apply(&unit, None, 0));
    let (mut known, fixed) = (Known::new(1), Known::new(1));
    let mut diff = if streams { Diff::growing(&mut known, rules()) } else { Diff::against(&fixed, rules()) };
    diff.read_memberships_by(Strategy::List, false);
    diff.begin_walk(Kind::User);
    for page in pages {
        diff.take_page(Kind::User, rows(Kind::User, page));
        if streams {
            let units = diff.drain_users();
            diff.follow(|known| write(known, units));
        }
    }
    let rest = diff.finish(&Default::default(), 0).units;
    write(&mut known, rest);
    let mut users: Vec<_> =
        known.table(Kind::User).iter().map(|(id, entry)| (id.clone(), entry.packed.to_owned())).collect();
    users.sort_by(|one, other| one.0.cmp(&other.0));
    users
}

fn user() -> impl proptest::strategy::Strategy<Value = Value> {
    let title = proptest::option::of(prop_oneof![Just("A"), Just("B")]);
    (proptest::option::of(any::<bool>()), title)
        .prop_map(|(active, title)| json!({ "id": "1", "userName": "u", "active": active, "title": title }))
}

fn group() -> impl proptest::strategy::Strategy<Value = Value> {
    proptest::collection::btree_set(1..4_u8, 0..3).prop_map(|members| {
        let members: Vec<Value> = members.iter().map(|id| json!({ "value": id.to_string() })).collect();
        json!({ "id": "g", "displayName": "G", "members": members })
    })
}

proptest! {
    #[test]
    fn a_first_sync_that_writes_page_by_page_knows_what_it_would_know_at_the_end(
        users in proptest::collection::vec(user(), 1..5),
        seed: u64,
        size in 1..4_usize,
    ) {
        let others: Vec<Value> = (2..6).map(|id| json!({ "id": id.to_string(), "userName": "other" })).collect();
        let mut users = [users, others].concat();
        fastrand::Rng::with_seed(seed).shuffle(&mut users);
        let pages: Vec<Vec<Value>> = users.chunks(size).map(<[Value]>::to_vec).collect();
        prop_assert_eq!(known(&pages, true), known(&pages, false));
    }

    #[test]
    fn rows_of_one_id_are_merged_whatever_their_order(
        users in proptest::collection::vec(user(), 1..5),
        groups in proptest::collection::vec(group(), 1..4),
        seed: u64,
    ) {
        let others: Vec<Value> = (2..4).map(|id| json!({ "id": id.to_string(), "userName": "other" })).collect();
        let users = [users, others].concat();
        let (mut mixed_users, mut mixed_groups) = (users.clone(), groups.clone());
        let mut random = fastrand::Rng::with_seed(seed);
        random.shuffle(&mut mixed_users);
        random.shuffle(&mut mixed_groups);
        prop_assert_eq!(written(&users, &groups), written(&mixed_users, &mixed_groups));
    }
}
