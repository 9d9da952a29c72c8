//! Whether two values of an attribute contradict each other, where one may show less than the other.

use std::collections::VecDeque;

use super::values::{Twice, comparable};
use crate::json::{Field, Json};

/// Elements of arrays that [`compatible`] pairs up; longer ones have to be equal.
const PAIRED_MAX: usize = 1_000;

/// Comparisons that one call of [`compatible`] makes: less than a second.
const COMPARISONS_MAX: usize = 1 << 23;

/// True where two values agree in what both of them show, so that neither contradicts the other: a list may show less
/// of a resource than GET does.
///
/// Objects agree where the sub-attributes that both have do. Arrays agree where they are equally long, and each element
/// agrees with one of the other that is its alone. What [`comparable`] leaves out does not matter. One value agrees
/// with an array of it, and a bare value with the `value` of an object. Long arrays have to be equal.
pub fn compatible(known: &str, got: &str) -> bool {
    if comparable("", known) == comparable("", got) {
        return true;
    }
    let (Some(known), Some(got)) = (Json::read(known), Json::read(got)) else { return false };
    let (empty_known, empty_got) = (known.empty(), got.empty());
    match (known.settled("", Twice::Kept), got.settled("", Twice::Kept)) {
        (None, None) => true,
        (known, got) => {
            let (known, got) = (known.unwrap_or(empty_known), got.unwrap_or(empty_got));
            Work(COMPARISONS_MAX).agree(&known, &got).unwrap_or(false)
        }
    }
}

/// How many more comparisons are made. Every answer of `None` means that they are used up.
struct Work(usize);

impl Work {
    fn spend(&mut self, comparisons: usize) -> Option<()> {
        self.0 = self.0.checked_sub(comparisons)?;
        Some(())
    }

    fn agree(&mut self, known: &Json<'_>, got: &Json<'_>) -> Option<bool> {
        self.spend(1)?;
        match (known, got) {
            (Json::Array(known), Json::Array(got)) => self.elements_agree(known, got),
            (Json::Object(known), Json::Object(got)) => self.members_agree(known, got),
            (Json::Array(elements), one) | (one, Json::Array(elements)) => match elements.as_slice() {
                [element] => self.agree(element, one),
                _ => Some(false),
            },
            (object @ Json::Object(_), bare) | (bare, object @ Json::Object(_)) => {
                Some(object.all("value").any(|value| value == bare))
            }
            (known, got) => Some(known == got),
        }
    }

    /// Both are sorted. A name that occurs twice agrees where one of its values does.
    fn members_agree(&mut self, known: &[Field<'_>], got: &[Field<'_>]) -> Option<bool> {
        self.spend(known.len())?;
        for group in known.chunk_by(|(name, _), (next, _)| name == next) {
            let name = group.first().map(|(name, _)| name)?;
            let start = got.partition_point(|(other, _)| other < name);
            let same = got.iter().skip(start).take_while(|(other, _)| other == name);
            let mut differs = false;
            let mut agrees = false;
            for (_, other) in same {
                for (_, value) in group {
                    let agree = self.agree(value, other)?;
                    (agrees, differs) = (agrees || agree, differs || !agree);
                }
            }
            if differs && !agrees {
                return Some(false);
            }
        }
        Some(true)
    }

    /// Whether the elements can be paired up. Both are sorted.
    fn elements_agree(&mut self, known: &[Json<'_>], got: &[Json<'_>]) -> Option<bool> {
        self.spend(known.len())?;
        if known.len() != got.len() {
            return Some(false);
        }
        if known.len() > PAIRED_MAX {
            return Some(known == got);
        }
        let mut pairs = Pairs::of_equals(known, got);
        for index in 0..known.len() {
            if pairs.of_known[index].is_none()
                && !pairs.add(index, |one, other| self.agree(&known[one], &got[other]))?
            {
                return Some(false);
            }
        }
        Some(true)
    }
}

/// Which known element is paired with which one that was got, by index.
struct Pairs {
    of_known: Vec<Option<usize>>,
    of_got: Vec<Option<usize>>,
}

impl Pairs {
    /// Most elements are the same on both sides: only the others are looked at closely.
    fn of_equals(known: &[Json<'_>], got: &[Json<'_>]) -> Pairs {
        let mut pairs = Pairs { of_known: vec![None; known.len()], of_got: vec![None; got.len()] };
        let (mut one, mut other) = (0, 0);
        while let (Some(left), Some(right)) = (known.get(one), got.get(other)) {
            let order = left.cmp(right);
            if order.is_eq() {
                pairs.pair(one, other);
            }
            one += usize::from(order.is_le());
            other += usize::from(order.is_ge());
        }
        pairs
    }

    fn pair(&mut self, known: usize, got: usize) {
        self.of_known[known] = Some(got);
        self.of_got[got] = Some(known);
    }

    /// Finds one for this element, where need be by giving others a new one (an augmenting path, by breadth).
    fn add(&mut self, known: usize, mut agree: impl FnMut(usize, usize) -> Option<bool>) -> Option<bool> {
        let len = self.of_got.len();
        // Through which element each one of the other side was reached.
        let mut through: Vec<Option<usize>> = vec![None; len];
        let mut queue = VecDeque::from([known]);
        while let Some(one) = queue.pop_front() {
            // Both sides are sorted: the right one is likely near.
            for other in (one..len).chain(0..one) {
                if through[other].is_some() || !agree(one, other)? {
                    continue;
                }
                through[other] = Some(one);
                match self.of_got[other] {
                    Some(taken_by) => queue.push_back(taken_by),
                    None => {
                        self.shift(other, &through);
                        return Some(true);
                    }
                }
            }
        }
        Some(false)
    }

    /// Pairs the free one with the element it was reached through, and so on for the one that this frees.
    fn shift(&mut self, free: usize, through: &[Option<usize>]) {
        let mut next = Some(free);
        while let Some(got) = next {
            let Some(known) = through[got] else { return };
            next = self.of_known[known];
            self.pair(known, got);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_agree_in_what_both_show() {
        for (one, other) in [
            (r#""a""#, r#""\u0061""#),
            (r#"{"a":1}"#, r#"{"A":1,"b":2}"#),
            (r#"{"a":1}"#, r#"{"b":2}"#),
            (r#"{"a":null,"b":1}"#, r#"{"a":2,"B":1}"#),
            (r#"{"value":"1","display":"A"}"#, r#"{"value":"1","display":"B"}"#),
            (r#"{"primary":true}"#, r#"{"primary":"True"}"#),
            (r#"[{"value":"a"},{"value":"b"}]"#, r#"[{"value":"b","type":"t"},{"type":"u","value":"a"}]"#),
            // The first that agrees is not always the right one.
            (r#"[{"a":1},{"a":1,"b":1}]"#, r#"[{"a":1,"b":1},{"a":1,"b":2}]"#),
            (r#"[{"a":1},{"a":1,"b":1},{"b":2}]"#, r#"[{"a":1},{"a":1,"b":1},{"a":3}]"#),
            (r#""a""#, r#"[{"value":"a","type":"t"}]"#),
            (r#"{"value":"a"}"#, r#"["a"]"#),
            ("null", "[]"),
            ("{}", r#"{"a":1}"#),
            ("not JSON", "not JSON"),
            (r#"{"a":1,"A":2}"#, r#"{"a":2}"#),
            (r#"[{"value":"a"},{"value":"a"}]"#, r#"[{"value":"a","type":"t"},{"value":"a","type":"u"}]"#),
            (r#"["a","a"]"#, r#"["a"]"#),
        ] {
            assert!(compatible(one, other) && compatible(other, one), "{one} {other}");
        }
    }

    #[test]
    fn values_that_contradict_each_other_do_not_agree() {
        for (one, other) in [
            (r#""a""#, r#""b""#),
            ("1", r#""1""#),
            ("1", "1.0"),
            (r#"{"a":1,"b":1}"#, r#"{"A":2,"b":1}"#),
            (r#"["a"]"#, r#"["a","b"]"#),
            (r#"["a","b"]"#, r#"["a","c"]"#),
            (r#"[{"a":1},{"a":1}]"#, r#"[{"a":1},{"a":2}]"#),
            (r#"[{"a":1,"b":1},{"a":1,"b":2}]"#, r#"[{"a":1},{"a":2}]"#),
            ("[]", r#"["a"]"#),
            ("null", r#""a""#),
            ("not JSON", r#""a""#),
            (r#"{"a":1,"A":2}"#, r#"{"a":3}"#),
        ] {
            assert!(!compatible(one, other) && !compatible(other, one), "{one} {other}");
        }
    }

    #[test]
    fn long_arrays_have_to_be_equal() {
        let list = |count: usize, rest: &str| {
            let elements: Vec<String> = (0..count).map(|number| format!(r#"{{"value":"{number}"{rest}}}"#)).collect();
            format!("[{}]", elements.join(","))
        };
        assert!(compatible(&list(PAIRED_MAX, ""), &list(PAIRED_MAX, r#","type":"t""#)));
        assert!(!compatible(&list(PAIRED_MAX + 1, ""), &list(PAIRED_MAX + 1, r#","type":"t""#)));
        assert!(compatible(&list(PAIRED_MAX + 1, ""), &list(PAIRED_MAX + 1, r#","display":"d""#)));
    }

    #[test]
    fn values_that_take_too_long_to_compare_are_given_up() {
        let read = |text| Json::read(text).expect("it is JSON");
        let (one, other) = (read(r#"[{"a":1},{"a":2}]"#), read(r#"[{"a":2,"b":1},{"a":1,"b":1}]"#));
        let agree = |comparisons| Work(comparisons).agree(&one, &other);
        assert_eq!((agree(0), agree(5), agree(100)), (None, None, Some(true)));
        // Each of them has its like at the other end of the list, and differs from the others in the last name only.
        let list = |object: &dyn Fn(usize) -> String| {
            let alike: String = (10..40).map(|name| format!(r#""m{name}":0,"#)).collect();
            let objects: Vec<String> = (0..PAIRED_MAX).map(|number| format!("{{{alike}{}}}", object(number))).collect();
            format!("[{}]", objects.join(","))
        };
        let one = list(&|number| format!(r#""z":{}"#, 1_000 + number));
        let other = list(&|number| format!(r#""a":{},"z":{}"#, 1_000 + number, 1_999 - number));
        let settled =
            |text| Json::read(text).and_then(|json| json.settled("", Twice::Kept)).expect("it shows something");
        let agree = |comparisons| Work(comparisons).agree(&settled(&one), &settled(&other));
        assert_eq!((agree(COMPARISONS_MAX), agree(usize::MAX)), (None, Some(true)));
        assert!(!compatible(&one, &other));
    }

    type Shown = BTreeMap<String, u8>;

    /// Small objects, of which many agree with many.
    fn objects() -> impl Strategy<Value = Vec<Shown>> {
        let object = proptest::collection::btree_map("[abc]", 0..3u8, 1..4);
        proptest::collection::vec(object, 1..6)
    }

    fn list(objects: &[Shown]) -> String {
        serde_json::to_string(objects).expect("it is JSON")
    }

    /// Whether the first agrees with one of the others so that the rest agree with the rest.
    fn pair_up(known: &[Shown], got: &[Shown]) -> bool {
        let Some((first, rest)) = known.split_first() else { return got.is_empty() };
        (0..got.len()).any(|index| {
            let agrees = first.iter().all(|(name, value)| got[index].get(name).is_none_or(|other| other == value));
            let mut others = got.to_vec();
            others.remove(index);
            agrees && pair_up(rest, &others)
        })
    }

    proptest! {
        #[test]
        fn elements_agree_where_some_way_to_pair_them_up_does(known in objects(), got in objects()) {
            let distinct = |objects: &[Shown]| objects.iter().cloned().collect::<BTreeSet<Shown>>();
            let expected = pair_up(&known, &got) || distinct(&known) == distinct(&got);
            prop_assert_eq!(compatible(&list(&known), &list(&got)), expected);
            prop_assert_eq!(compatible(&list(&got), &list(&known)), expected);
        }

        #[test]
        fn a_value_that_shows_less_contradicts_none(got in objects(), seed: u64) {
            let random = &mut fastrand::Rng::with_seed(seed);
            let mut known = got.clone();
            for object in &mut known {
                while object.len() > 1 && random.bool() {
                    object.pop_first();
                }
            }
            random.shuffle(&mut known);
            prop_assert!(compatible(&list(&known), &list(&got)), "{:?} {:?}", known, got);
        }
    }
}
