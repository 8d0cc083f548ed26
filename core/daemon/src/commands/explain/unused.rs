//! Why rows that have a value of a key in common are not one member.

use std::collections::{BTreeSet, HashMap, HashSet};

use arrow::array::{Array, AsArray, RecordBatch};
use reunion_model::record::{PHONE, REASON, RECORD_KEY};
use reunion_model::schema::MEMBER_ID;
use reunion_model::{Decision, DecisionKind, MemberId, Phone, Reason, RecordKey};
use reunion_people::{Census, Fate, Held, IdentityConfig, SharedPhonePolicy, Unused, Why, too_many_values};
use serde_json::{Value, json};

use crate::failure::{Doing, Failure};
use crate::run::{holders, identity_config};

use super::Explainer;
use super::derivation::{Rows, masked};
use crate::commands::view::is_in;

/// Other members that are named for one value.
const OTHERS_MAX: usize = 5;

/// What is known of those who have a value of the member's too.
struct Others {
    /// The records of each member, this one among them.
    records: HashMap<MemberId, HashSet<RecordKey>>,
    rows: HashMap<MemberId, RecordBatch>,
    /// Of each member and number, by which of its holders the member has it, where there were several.
    holders: HashMap<(MemberId, Phone), BTreeSet<Option<RecordKey>>>,
    decisions: Vec<Decision>,
    /// Whether the generation was made by the rules that the config has now.
    same_rules: bool,
}

impl Explainer<'_> {
    /// The values of a member's keys that do not join all who have them.
    pub(super) fn unused(&self, member: MemberId, rows: &Rows) -> Result<Vec<Unused>, Failure> {
        let doing = || "the keys of the member cannot be compared".to_owned();
        let config = identity_config(&self.app.config);
        let mut census = Census::new(&config, self.state.keys.lookup(), &rows.parts()).doing(doing)?;
        let columns = Census::columns(&config);
        let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
        for (origin, _) in self.view.sources()? {
            self.view.each_part(&format!("records/{origin}"), Some(&columns), |part| census.ask(part).doing(doing))?;
        }
        let fates = self.fates(&census.found().map(|key| key.0).collect())?;
        Ok(census.unused(member, |record| fates.get(record).copied()))
    }

    /// Whether the generation was made by other rules of who is who than the config has, or by another version.
    pub(super) fn has_other_rules(&self) -> Result<bool, Failure> {
        Ok(self.view.schema()?.identity != identity_config(&self.app.config).terms())
    }

    /// What became of those of these records that join others.
    fn fates(&self, keys: &HashSet<[u8; 16]>) -> Result<HashMap<RecordKey, Fate>, Failure> {
        let mut fates = HashMap::new();
        self.view.each_part("assignments", Some(&[RECORD_KEY, MEMBER_ID, REASON]), |part| {
            let [records, members] = [0, 1].map(|column| part.column(column).as_fixed_size_binary());
            let reasons = part.column(2).as_string::<i32>();
            for row in 0..part.num_rows() {
                let Some(record) = RecordKey::from_slice(records.value(row)).filter(|record| keys.contains(&record.0)) else { continue };
                if members.is_valid(row) {
                    fates.extend(MemberId::from_slice(members.value(row)).map(|member| (record, Fate::Member(member))));
                } else if reasons.value(row) == Reason::PhoneRecycled.code() {
                    fates.insert(record, Fate::Former);
                }
            }
            Ok(())
        })?;
        Ok(fates)
    }

    /// These values as a document: one entry for each reason why one does not join. `same_rules` says whether the generation
    /// was made by the rules that the config has now.
    pub(super) fn not_used(&self, member: MemberId, rows: &Rows, unused: &[Unused], same_rules: bool) -> Result<Vec<Value>, Failure> {
        let config = identity_config(&self.app.config);
        let others = self.others(member, unused, same_rules)?;
        let mut documents = Vec::new();
        for unused in unused {
            let mut value = json!({ "columns": unused.columns, "values": masked(&unused.columns, &unused.values) });
            value["rows"] = unused.records.iter().map(|record| self.origin(rows, record)).collect();
            for why in self.whys(member, &config, &others, unused)? {
                let mut document = value.clone();
                document.as_object_mut().into_iter().for_each(|document| document.extend(why.as_object().cloned().unwrap_or_default()));
                documents.push(document);
            }
        }
        Ok(documents)
    }

    /// Why a value does not join: of each member that has it too at least one reason.
    fn whys(&self, member: MemberId, config: &IdentityConfig, others: &Others, unused: &Unused) -> Result<Vec<Value>, Failure> {
        let key = |column: &str, name: &str| format!("identity.limits.{column}.{name}");
        let (members, former) = match &unused.why {
            Why::Blocked { column } => return Ok(vec![json!({ "why": "blocked", "column": column, "config": key(column, "blocked") })]),
            Why::TooCommon { records, max, column } => {
                let why =
                    json!({ "why": "too_common", "column": column, "count": records, "max": max, "config": key(column, "records_max") });
                return Ok(vec![why]);
            }
            Why::Apart { members, former } => (members, *former),
        };
        let mut whys = Vec::new();
        for (other, records) in members.iter().take(OTHERS_MAX) {
            let mut found = self.between(member, *other, config, others, unused)?;
            found.iter_mut().for_each(|why| (why["member_id"], why["count_there"]) = (json!(other), json!(records)));
            whys.extend(found);
        }
        if members.len() > OTHERS_MAX {
            whys.push(json!({ "why": "more", "count": members.len() - OTHERS_MAX }));
        }
        if former > 0 {
            whys.push(json!({ "why": "recycled", "quarantined": former, "config": RECYCLED }));
        }
        Ok(whys)
    }

    /// What keeps two members apart that have a value in common.
    fn between(
        &self,
        member: MemberId,
        other: MemberId,
        config: &IdentityConfig,
        others: &Others,
        unused: &Unused,
    ) -> Result<Vec<Value>, Failure> {
        let mut whys = Vec::new();
        let is_phone = unused.columns == [PHONE];
        if is_phone && others.are_other_holders(member, other, &unused.values[0]) {
            whys.push(json!({ "why": "recycled", "config": RECYCLED }));
        }
        whys.extend(others.kept_apart(member, other).map(|id| json!({ "why": "kept_apart", "decision_id": id })));
        let rows = [member, other].into_iter().filter_map(|member| others.rows.get(&member));
        let doing = || "the values of members cannot be counted".to_owned();
        for (column, count, max) in too_many_values(config, self.state.keys.lookup(), rows).doing(doing)? {
            let key = format!("identity.limits.{column}.values_max");
            whys.push(json!({ "why": "values_max", "column": column, "count": count, "max": max, "config": key }));
        }
        if whys.is_empty() {
            let is_household = is_phone && config.shared_phone.policy == SharedPhonePolicy::Household;
            whys.push(match others.same_rules {
                true if is_household => json!({ "why": "household", "config": "identity.shared_phone.policy" }),
                true => json!({ "why": "unknown" }),
                false => json!({ "why": "other_rules" }),
            });
        }
        Ok(whys)
    }

    fn others(&self, member: MemberId, unused: &[Unused], same_rules: bool) -> Result<Others, Failure> {
        let of_value = |unused: &Unused| match &unused.why {
            Why::Apart { members, .. } => members.keys().take(OTHERS_MAX).copied().collect(),
            _ => Vec::new(),
        };
        let mut members: HashSet<[u8; 16]> = unused.iter().flat_map(of_value).map(|member| member.0).collect();
        let mut others =
            Others { records: HashMap::new(), rows: HashMap::new(), holders: HashMap::new(), decisions: Vec::new(), same_rules };
        if members.is_empty() {
            return Ok(others);
        }
        members.insert(member.0);
        for (record, member) in self.view.keys_of(&members)? {
            others.records.entry(member).or_default().insert(record);
        }
        let rows = self.view.records_of(&members)?;
        for member in &members {
            let own = is_in(&rows, MEMBER_ID, &HashSet::from([*member]));
            let own = arrow::compute::filter_record_batch(&rows, &own).doing(|| "records cannot be chosen".to_owned())?;
            others.rows.insert(MemberId(*member), own);
        }
        if let Some(held) = self.view.rows_where(holders::TABLE, |part| is_in(part, MEMBER_ID, &members))? {
            for Held { member, phone, came_with } in holders::held_in(&held) {
                others.holders.entry((member, phone)).or_default().insert(came_with);
            }
        }
        others.decisions = self.state.ask(self.state.ledger.facts())?.decisions;
        Ok(others)
    }
}

const RECYCLED: &str = "identity.shared_phone.recycled_after_days";

impl Others {
    /// Whether the number came from one of them to the other.
    fn are_other_holders(&self, member: MemberId, other: MemberId, phone: &str) -> bool {
        let Ok(phone) = phone.parse().map(Phone::from_e164_digits) else { return false };
        let [one, two] = [member, other].map(|member| self.holders.get(&(member, phone)));
        one.zip(two).is_some_and(|(one, two)| one.is_disjoint(two))
    }

    /// The decisions by which an operator keeps two members apart.
    fn kept_apart(&self, member: MemberId, other: MemberId) -> impl Iterator<Item = String> {
        let is_of = |member: MemberId| move |record: &RecordKey| self.records.get(&member).is_some_and(|records| records.contains(record));
        let keeps = |of: &&Decision| of.kind == DecisionKind::Apart && of.is_between(is_of(member), is_of(other));
        let found: BTreeSet<String> = self.decisions.iter().filter(keeps).map(|of| of.id.to_string()).collect();
        found.into_iter()
    }
}
