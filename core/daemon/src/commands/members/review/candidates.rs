//! The probable duplicates of the head, scored anew for each generation and kept in a file beside it.
//!
//! The file holds what can be made again: ids of members, weights and degrees of agreement, and no value of anybody.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use reunion_linkage::{Dirty, Pair, Plan, Rows, Table, score, train};
use reunion_model::MemberId;
use reunion_model::limits::REVIEW_PAIRS_MAX;
use reunion_model::schema::{MEMBER_ID, PHONE};
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use crate::failure::{Doing, Failure};

use super::super::super::view::{View, member_ids};
use super::gate::millibits;

/// What says less is not shown.
const BITS_SHOWN_MIN: f64 = 0.05;
/// The version of the file's shape, and of what is compared.
const VERSION: u32 = 1;
/// The file, in the folder of the state.
const FILE: &str = "review.json";
/// The degrees of agreement of names that sound alike or are one: brothers, sisters and twins have others.
const NAMES_ALIKE: [&str; 5] = ["exact", "homophone_tone", "homophone", "romanised", "swapped"];

/// The probable duplicates of a generation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Candidates {
    version: u32,
    /// The generation, and the checksum of its manifest: its number is given again after a rollback.
    pub generation: u64,
    manifest: String,
    /// Its members.
    pub members: usize,
    /// The columns that were compared, in the order of the reasons of pairs.
    pub columns: Vec<String>,
    /// Why no pair could be scored, where that is so.
    pub unscored: Option<String>,
    /// How often a member was in a group that was too large to be compared.
    pub rows_skipped: usize,
    /// The most probable pair first.
    pub pairs: Vec<Candidate>,
    /// Pairs that are probable enough and not among these, which are more probable.
    pub left_out: u64,
}

/// Two members that may be one person.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// What the pair is called: twelve hex digits that follow from the ids of its members.
    pub id: String,
    /// The member with the smaller id.
    pub left: MemberId,
    /// The other.
    pub right: MemberId,
    /// The prior and all reasons, in bits.
    pub weight_bits: f64,
    /// The same as a probability.
    pub probability: f64,
    /// For each column that was compared its degree of agreement, where both have a value, and what it says, in bits.
    pub reasons: Vec<(Option<String>, f64)>,
}

impl Candidates {
    /// Those of the head: from the file, or scored now.
    ///
    /// # Errors
    /// Where files cannot be read, or the members do not fit what is compared.
    pub fn of_head(view: &View<'_>, scoring: impl FnOnce()) -> Result<Self, Failure> {
        let file = view.state.people.state().root().join(FILE);
        if let Some(known) = Self::read(&file).filter(|known| known.is_of(view)) {
            return Ok(known);
        }
        scoring();
        let found = Self::find(view)?;
        if let Err(error) = found.write(&file) {
            tracing::warn!("{} cannot be written, so that pairs are scored again each time: {error}", file.display());
        }
        Ok(found)
    }

    fn read(file: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(file).ok()?).ok()
    }

    fn is_of(&self, view: &View<'_>) -> bool {
        let head = &view.head;
        self.version == VERSION && self.generation == head.generation && self.manifest == head.manifest_checksum
    }

    /// Whole or not at all: a command beside this one may read it.
    fn write(&self, file: &Path) -> io::Result<()> {
        let mut part = NamedTempFile::new_in(file.parent().unwrap_or(file))?;
        part.write_all(&serde_json::to_vec(self)?)?;
        part.persist(file)?;
        Ok(())
    }

    /// Scores the members of the head.
    fn find(view: &View<'_>) -> Result<Self, Failure> {
        let (generation, manifest) = (view.head.generation, view.head.manifest_checksum.clone());
        let none = Self { version: VERSION, generation, manifest, ..Self::default() };
        let schema = view.schema()?;
        let mut known: Vec<&str> = schema.columns.iter().map(|column| column.name.as_str()).collect();
        known.push(PHONE);
        let Some(mut plan) = Plan::retail(&known) else {
            let why = "members have too few columns that tell people apart: a name, a birthday and a store would do";
            return Ok(Self { unscored: Some(why.to_owned()), ..none });
        };
        plan.limits.kept_max = REVIEW_PAIRS_MAX;
        let mut wanted = plan.columns();
        wanted.push(MEMBER_ID);
        let batches = view.batches("members", Some(&wanted))?;
        let doing = || "probable duplicates cannot be worked out".to_owned();
        let table = Table::read(&plan, Rows { batches: &batches, key: MEMBER_ID, side: None }).doing(doing)?;
        let columns = plan.comparisons.iter().map(|comparison| comparison.column.clone()).collect();
        let found = Self { members: table.rows(), columns, ..none };
        let model = match train(&table, &plan) {
            Ok(model) => model,
            Err(error) => return Ok(Self { unscored: Some(error.to_string()), ..found }),
        };
        let scored = score(&table, &plan, &model, Dirty::All).doing(doing)?;
        let ids: Vec<MemberId> = batches.iter().flat_map(member_ids).collect();
        let mut pairs: Vec<Candidate> = scored.pairs.iter().map(|pair| Candidate::new(pair, &ids)).collect();
        pairs.sort_by(|one, other| other.weight_bits.total_cmp(&one.weight_bits).then_with(|| one.id.cmp(&other.id)));
        let rows_skipped = scored.blocking.keys.iter().map(|key| key.rows_skipped).sum();
        Ok(Self { rows_skipped, pairs, left_out: scored.left_out, ..found })
    }
}

impl Candidate {
    fn new(pair: &Pair, ids: &[MemberId]) -> Self {
        let (one, other) = (ids[pair.left as usize], ids[pair.right as usize]);
        let (left, right) = (one.min(other), one.max(other));
        let name = xxhash_rust::xxh3::xxh3_64(&[left.0, right.0].concat()) >> 16;
        Self {
            id: format!("{name:012x}"),
            left,
            right,
            weight_bits: pair.weight,
            probability: pair.probability,
            reasons: pair.reasons.iter().map(|reason| (reason.level.map(str::to_owned), reason.bits)).collect(),
        }
    }

    /// Its weight as decisions keep it.
    pub fn weight_millibits(&self) -> i64 {
        millibits(self.weight_bits)
    }

    /// Whether scores alone may ever decide about it: only where the names agree at least in sound.
    pub fn has_names_alike(&self, columns: &[String]) -> bool {
        let name = columns.iter().zip(&self.reasons).find(|(column, _)| *column == "name");
        name.is_some_and(|(_, (level, _))| level.as_deref().is_some_and(|level| NAMES_ALIKE.contains(&level)))
    }

    /// What speaks for one person and what against, in one line without any value: `probability 0.9981: name exact +9.2, …`.
    pub fn evidence(&self, columns: &[String]) -> String {
        let reasons = columns.iter().zip(&self.reasons).filter_map(|(column, (level, bits))| {
            let level = level.as_ref().filter(|_| bits.abs() >= BITS_SHOWN_MIN)?;
            Some(format!("{column} {} {bits:+.1}", level.replace('_', " ")))
        });
        format!("probability {}: {}", shown_probability(self.probability), reasons.collect::<Vec<_>>().join(", "))
    }
}

/// A probability with all of its nines and a digit more.
pub fn shown_probability(probability: f64) -> String {
    let doubt = (1.0 - probability).max(1e-9);
    let digits = (-doubt.log10()).floor().clamp(1.0, 8.0) as usize + 1;
    // Cut and not rounded: 1 would say that there is no doubt.
    let scale = 10_f64.powi(digits as i32);
    format!("{:.digits$}", (probability.min(1.0 - 1e-9) * scale).floor() / scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(name: Option<&str>) -> Candidate {
        let reasons =
            vec![(name.map(str::to_owned), 9.25), (Some("one_digit".to_owned()), 11.0), (None, 0.0), (Some("other".to_owned()), -3.04)];
        Candidate {
            id: "0123456789ab".to_owned(),
            left: MemberId::from_u128(1),
            right: MemberId::from_u128(2),
            weight_bits: 9.1234,
            probability: 0.9982,
            reasons,
        }
    }

    #[test]
    fn the_evidence_has_no_values_and_says_nothing_of_what_is_missing() {
        let columns = ["name", "phone", "birthday", "gender"].map(str::to_owned);
        insta::assert_snapshot!(candidate(Some("homophone_tone")).evidence(&columns), @"probability 0.998: name homophone tone +9.2, phone one digit +11.0, gender other -3.0");
        assert_eq!(candidate(None).weight_millibits(), 9123);
    }

    #[test]
    fn only_names_that_sound_alike_are_merged_by_scores() {
        let columns = ["name", "phone", "birthday", "gender"].map(str::to_owned);
        let alike = |name| candidate(name).has_names_alike(&columns);
        assert!(alike(Some("exact")) && alike(Some("homophone")));
        assert!(!alike(Some("close")) && !alike(Some("surname")) && !alike(None));
        assert!(!candidate(Some("exact")).has_names_alike(&columns[1..]), "no names were compared");
    }

    #[test]
    fn a_probability_is_never_shown_as_certainty() {
        let shown = [0.9, 0.951, 0.9982, 0.999_99, 1.0].map(shown_probability);
        assert_eq!(shown, ["0.90", "0.95", "0.998", "0.999990", "0.999999999"].map(str::to_owned));
    }

    #[test]
    fn what_was_found_is_read_again_and_other_shapes_are_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join(FILE);
        assert_eq!(Candidates::read(&file), None);
        let known = Candidates {
            version: VERSION,
            generation: 3,
            manifest: "sum".to_owned(),
            members: 2,
            columns: vec!["name".to_owned()],
            unscored: None,
            rows_skipped: 7,
            pairs: vec![candidate(Some("exact"))],
            left_out: 0,
        };
        known.write(&file).expect("written");
        assert_eq!(Candidates::read(&file).as_ref(), Some(&known));
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1, "no part is left");
        fs::write(&file, "{}").expect("written");
        assert_eq!(Candidates::read(&file), None);
    }
}
