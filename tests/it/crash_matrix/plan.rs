//! Which fault strikes in which run.

use scimtail::failpoint::Point;

/// Runs of a round: after some time a prefix has seen enough.
const ROUND: usize = 25;
/// Rounds of every `cargo test`.
pub const FIRST_ROUNDS: usize = 2;
/// A fault that comes with a delay comes within this: transactions take some tens of milliseconds.
const DELAY_MS_MAX: u64 = 60;
/// Settings of every run: few units in a transaction, because a sync then takes several.
pub const CALM: &str = "batch.units=return(5)";

/// The treatment of the process that dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `run --once`.
    Once,
    /// `run --once` that finds requests of people waiting.
    Requested,
    /// `run --once`, where one account has a record that the broker's bound refuses: its transactions abort.
    Aborted,
    /// `run`, first on its own account, then because of `poll`, at last on its way out.
    Service,
    /// Two `run` in one group, of which one dies; the other takes over.
    Joined,
    /// `run` that was stopped until the group went on without it.
    Lost,
    /// `run --once` that stops in the middle, until another one has done everything; then it goes on.
    Overtaken,
    /// `run --once` dies, and the broker too.
    BrokerToo,
    /// `run --once` or `run` stops in the middle, until the broker was killed and restarted; then it goes on.
    BrokerUnder,
}

/// One fault.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub kind: Kind,
    pub point: Point,
    /// The n-th time that a process gets there.
    pub nth: usize,
    /// Killed that much later; milliseconds.
    pub delay: Option<u64>,
}

impl Plan {
    /// Kinds in which a point is reached, the cheapest first, and how often each is drawn.
    fn kinds(point: Point) -> &'static [(usize, Kind)] {
        match point {
            Point::AbortBefore | Point::AbortAfter => &[(1, Kind::Aborted)],
            Point::ControlBefore | Point::ControlAfter => &[(1, Kind::Requested), (1, Kind::Service)],
            Point::AssignedBefore | Point::AssignedAfter | Point::RevokedBefore | Point::RevokedAfter => {
                &[(1, Kind::Service), (1, Kind::Joined)]
            }
            Point::LostBefore | Point::LostAfter => &[(1, Kind::Lost)],
            _ => &[
                (6, Kind::Once),
                (1, Kind::Requested),
                (1, Kind::Aborted),
                (2, Kind::Service),
                (1, Kind::Joined),
                (2, Kind::Overtaken),
                (1, Kind::BrokerToo),
                (1, Kind::BrokerUnder),
            ],
        }
    }

    /// How often a run gets to a point, about.
    fn hits(point: Point) -> usize {
        match point {
            Point::SendBefore | Point::SendAfter | Point::ApplyMiddle => 20,
            Point::FetchBefore | Point::FetchAfter => 30,
            Point::RestoreMiddle => 150,
            Point::DiffBefore | Point::DiffAfter => 3,
            Point::FenceBefore | Point::FenceAfter | Point::RestoreBefore | Point::RestoreAfter => 2,
            Point::ControlBefore | Point::ControlAfter => 2,
            Point::AssignedBefore | Point::AssignedAfter | Point::RevokedBefore | Point::RevokedAfter => 1,
            Point::LostBefore | Point::LostAfter => 1,
            _ => 6,
        }
    }

    /// The runs of a round. The first two together reach every point and try every kind.
    pub fn round(seed: u64, round: usize) -> Vec<Plan> {
        if round < FIRST_ROUNDS {
            let all = Plan::first(&mut fastrand::Rng::with_seed(seed << 32));
            return all.into_iter().skip(round).step_by(FIRST_ROUNDS).collect();
        }
        let mut random = fastrand::Rng::with_seed(seed << 32 | round as u64);
        let mut points = Point::ALL.to_vec();
        random.shuffle(&mut points);
        points.into_iter().take(ROUND).map(|point| Plan::drawn(point, &mut random)).collect()
    }

    /// Every point once, in the cheapest way, and every kind.
    fn first(random: &mut fastrand::Rng) -> Vec<Plan> {
        let first = |&point: &Point| Plan { kind: Plan::kinds(point)[0].1, point, nth: 1, delay: None };
        let mut plans: Vec<Plan> = Point::ALL.iter().map(first).collect();
        let commit = Plan { kind: Kind::Once, point: Point::CommitBefore, nth: 2, delay: None };
        for kind in
            [Kind::Service, Kind::Joined, Kind::Overtaken, Kind::BrokerToo, Kind::BrokerUnder, Kind::BrokerUnder]
        {
            plans.push(Plan { kind, ..commit });
        }
        // An owner that read back before it fenced would publish again the changes that another one published in
        // between.
        plans.push(Plan { kind: Kind::Overtaken, point: Point::FenceBefore, nth: 1, delay: None });
        for delay in [10, 25] {
            plans.push(Plan { delay: Some(delay + random.u64(0..15)), ..commit });
        }
        plans
    }

    fn drawn(point: Point, random: &mut fastrand::Rng) -> Plan {
        let kinds: Vec<Kind> =
            Plan::kinds(point).iter().flat_map(|(weight, kind)| std::iter::repeat_n(*kind, *weight)).collect();
        let kind = *random.choice(&kinds).expect("every point is reached somehow");
        let nth = if random.bool() { 1 } else { random.usize(1..=Plan::hits(point)) };
        let delay = (random.u8(0..4) == 0).then(|| random.u64(0..DELAY_MS_MAX));
        Plan { kind, point, nth, delay }
    }

    pub fn failpoints(&self) -> String {
        let Plan { kind, point, nth, delay } = self;
        let stops = matches!(kind, Kind::Overtaken | Kind::BrokerUnder);
        let what = match delay {
            _ if stops => "stop".to_owned(),
            Some(delay) => format!("kill {delay}"),
            None => "kill".to_owned(),
        };
        format!("{CALM};{}={}*off->1*return({what})", point.name(), nth - 1).replace("=0*off->", "=")
    }
}
