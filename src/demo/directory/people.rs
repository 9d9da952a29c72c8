//! The names, titles and kinds of employment that simulated users are given.

/// Invented people, each only once.
pub struct People {
    given_names: [&'static str; GIVEN_NAMES.len()],
    family_names: [&'static str; FAMILY_NAMES.len()],
    drawn: usize,
}

pub struct Person {
    pub given_name: &'static str,
    pub family_name: &'static str,
    /// The part of the e-mail address before the `@`. It is never used again, so that a new user is not mistaken for an
    /// old one that returns.
    pub mailbox: String,
}

impl People {
    pub fn shuffled(rng: &mut fastrand::Rng) -> Self {
        let (mut given_names, mut family_names) = (GIVEN_NAMES, FAMILY_NAMES);
        rng.shuffle(&mut given_names);
        rng.shuffle(&mut family_names);
        Self { given_names, family_names, drawn: 0 }
    }

    pub fn next(&mut self) -> Person {
        // The two lists have coprime lengths, so walking both meets every pair before any repeats.
        let given_name = self.given_names[self.drawn % self.given_names.len()];
        let family_name = self.family_names[self.drawn % self.family_names.len()];
        let round = self.drawn / (self.given_names.len() * self.family_names.len());
        self.drawn += 1;
        let suffix = match round {
            0 => String::new(),
            round => (round + 1).to_string(),
        };
        Person { given_name, family_name, mailbox: format!("{given_name}.{family_name}{suffix}").to_lowercase() }
    }
}

const GIVEN_NAMES: [&str; 23] = [
    "Avery", "Blair", "Casey", "Dana", "Ellis", "Farah", "Gale", "Hanna", "Imre", "Jules", "Kiran", "Lior", "Mika",
    "Noor", "Oona", "Perry", "Quinn", "Remy", "Sami", "Tove", "Uma", "Vesna", "Wren",
];

pub const FAMILY_NAMES: [&str; 31] = [
    "Alderwick",
    "Ashquarry",
    "Birchlantern",
    "Brackenfell",
    "Cindermoor",
    "Copperfen",
    "Dapplegate",
    "Driftholm",
    "Emberlane",
    "Eskerdale",
    "Fernhollow",
    "Foxglade",
    "Glassbrook",
    "Heatherlow",
    "Inkberry",
    "Juniperson",
    "Kestrelby",
    "Larkmere",
    "Mossgrove",
    "Nettlewood",
    "Oatfield",
    "Pebblestone",
    "Quillmark",
    "Rushwater",
    "Saltmere",
    "Thistleby",
    "Umberfield",
    "Vellumore",
    "Willowhurst",
    "Yarrowdale",
    "Zephyrton",
];

pub const USER_TYPES: [&str; 4] = ["Employee", "Employee (part-time)", "Contractor", "Intern"];

pub const TITLES: [&str; 10] = [
    "Accountant",
    "Analyst",
    "Billing Specialist",
    "Customer Success Manager",
    "Finance Manager",
    "Product Manager",
    "Revenue Analyst",
    "Sales Representative",
    "Software Engineer",
    "Support Engineer",
];
