//! Every fixture in `testdata/config`: a good one loads, and a bad one says what is asserted in
//! `testdata/config/snapshots`.

use std::fs;
use std::path::{Path, PathBuf};

use arrow::datatypes::{DataType, Field, Schema};
use reunion_daemon::config::{Component, Config, Diagnostics, RecordId};
use reunion_model::schema::{ColumnType, Survivorship};
use serde_json::json;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/config")
}

/// The configs that end so: `<name>.bad.toml`, or `<name>.bad/reunion.toml` where there is a `conf.d`.
fn fixtures(ending: &str) -> Vec<(String, PathBuf)> {
    let listing = fs::read_dir(folder()).expect("the folder of fixtures");
    let mut found = Vec::new();
    for item in listing {
        let path = item.expect("a fixture").path();
        let name = path.file_name().expect("a name").to_str().expect("UTF-8").to_owned();
        if let Some(name) = name.strip_suffix(&format!(".{ending}.toml")) {
            found.push((name.to_owned(), path));
        } else if let Some(name) = name.strip_suffix(&format!(".{ending}")) {
            found.push((name.to_owned(), path.join("reunion.toml")));
        }
    }
    found.sort();
    found
}

fn load(name: &str) -> Config {
    Config::load(&folder().join(name)).unwrap_or_else(|findings| panic!("{name}:\n{findings}"))
}

fn said(findings: &Diagnostics) -> String {
    findings.render(false).replace(&format!("{}/", folder().display()), "")
}

/// All that is wrong with a config; with its key where the fixture's first line asks for it.
fn wrong(path: &Path) -> Diagnostics {
    match Config::load(path) {
        Ok(config) if fs::read_to_string(path).expect("a fixture").starts_with("# with the key") => {
            config.master_key().err().expect("a key that cannot be had")
        }
        Ok(config) => config.warnings().clone(),
        Err(findings) => findings,
    }
}

#[test]
fn bad_configs_say_what_is_wrong() {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(folder().join("snapshots"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    let _guard = settings.bind_to_scope();
    for (name, path) in fixtures("bad") {
        let findings = wrong(&path);
        assert!(!findings.is_empty(), "nothing is wrong with {name}");
        insta::assert_snapshot!(name, said(&findings));
    }
}

#[test]
fn good_configs_load() {
    for (name, path) in fixtures("good") {
        let config = Config::load(&path).unwrap_or_else(|findings| panic!("{name}:\n{findings}"));
        assert!(config.warnings().is_empty(), "{name}:\n{}", config.warnings());
    }
}

/// The sample of the repository, alone and with each of its campaigns in `conf.d`.
#[test]
fn the_samples_load() {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("reunion.toml");
    fs::copy(samples.join("reunion.toml"), &path).expect("the sample");
    fs::create_dir(folder.path().join("conf.d")).expect("conf.d");
    let campaigns = fs::read_dir(samples.join("campaigns")).expect("campaigns").map(|item| item.expect("a campaign").path());
    let mut expected = 0;
    for campaign in std::iter::once(None).chain(campaigns.map(Some)) {
        if let Some(campaign) = campaign {
            fs::copy(&campaign, folder.path().join("conf.d").join(campaign.file_name().expect("a name"))).expect("a campaign");
            expected += 1;
        }
        let config = Config::load(&path).unwrap_or_else(|findings| panic!("{findings}"));
        assert!(config.warnings().is_empty(), "{}", config.warnings());
        assert_eq!(config.campaigns.len(), expected);
        assert!(config.campaigns.values().all(|campaign| !campaign.enabled), "a sample contacts nobody by itself");
    }
}

#[test]
fn a_config_that_is_not_there_is_named() {
    let findings = Config::load(&folder().join("nowhere.toml")).expect_err("no file");
    insta::assert_snapshot!(said(&findings), @r"
    error: the config nowhere.toml cannot be read: No such file or directory (os error 2)
     |
     = help: name another file with --config
    ");
}

#[test]
fn parts_are_merged_in_order_and_paths_belong_to_their_file() {
    let config = load("in-parts.good/reunion.toml");
    let base = folder().join("in-parts.good");
    assert_eq!(config.tags.keys().collect::<Vec<_>>(), ["z", "a"]);
    assert_eq!(config.state.dir, base.join("state"));
    assert_eq!(config.plugins.path, [base.join("plugins")]);
    assert_eq!(config.files().count(), 3);
    let schema = json!({"properties": {
        "path": {"type": "string", "format": "path"},
        "more": {"items": {"properties": {"path": {"format": "path"}}}},
    }});
    let in_fragment = |name: &str| base.join("conf.d").join(name).display().to_string();
    assert_eq!(
        config.with_values(Component::Source, "pos", &schema),
        json!({"path": in_fragment("in/pos.csv"), "encoding": "gb18030", "title": "in/pos.csv", "more": [{"path": in_fragment("in/other.csv")}]})
    );
    assert_eq!(config.with_values(Component::Channel, "list", &schema), json!({}));
    let at = config.locate(&["sources", "pos", "with", "encoding"]);
    assert_eq!((at.file, at.line, at.column), (base.join("conf.d/10-pos.toml"), 3, 42));
}

#[test]
fn later_stages_report_at_the_right_place() {
    let config = load("design.good.toml");
    let audience = ["campaigns", "warm-add", "audience"];
    let findings = Diagnostics::at_offset(&config, &audience, 15, 7, "there is no column `dormant`", Some("did you mean …?".into()));
    insta::assert_snapshot!(said(&findings), @r#"
    error: there is no column `dormant`
      --> design.good.toml:34:28
       |
    34 | audience = "phone_only and dormant and store is not null"
       |                            ^^^^^^^
       |
       = help: did you mean …?
    "#);
    assert_eq!(findings.to_json()[0]["column"], 28);
    let findings = config.blame(Component::Source, "pos", Some("cursor_column"), "no such column", None);
    insta::assert_snapshot!(said(&findings), @r#"
    error: no such column
      --> design.good.toml:20:17
       |
    20 | cursor_column = "changed_at"
       |                 ^^^^^^^^^^^^
    "#);
    let findings = config.blame(Component::Channel, "store-list", Some("pth"), "unknown key `pth`", None);
    insta::assert_snapshot!(said(&findings), @r"
    error: unknown key `pth`
      --> design.good.toml:43:22
       |
    43 | [channels.store-list.with]
       |                      ^^^^
    ");
}

#[test]
fn columns_go_where_the_config_says() {
    let config = load("columns.good.toml");
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let names = ["手机", "卡号", "姓名", "性别", "消费(分)", "最后消费", "注册", "短信", "鞋码", "unionid", "store", "备注"];
    let found = Schema::new(names.map(text).to_vec());
    let plan = config.source_columns("pos", &found).expect("a plan");
    assert_eq!(plan.record_id, RecordId::Key(vec!["card_no".into()]));
    let shown: Vec<_> =
        plan.columns.iter().map(|column| format!("{}={} {} {}", column.to, column.from, column.kind, column.timezone.name())).collect();
    insta::assert_snapshot!(shown.join("\n"), @r"
    phone=手机 text Asia/Urumqi
    card_no=卡号 text Asia/Urumqi
    name=姓名 text Asia/Urumqi
    gender=性别 text Asia/Urumqi
    total_spent=消费(分) decimal Asia/Urumqi
    last_order_at=最后消费 timestamp Asia/Urumqi
    registered_at=注册 timestamp Asia/Tokyo
    sms_consent=短信 text Asia/Urumqi
    shoe_size=鞋码 integer Asia/Urumqi
    unionid=unionid text Asia/Urumqi
    store=store text Asia/Urumqi
    备注=备注 text Asia/Urumqi
    ");
    let members = config.member_columns(&[("pos", &plan)]).expect("columns");
    let rule = |name: &str| members.iter().find(|column| column.name == name).map(|column| (column.kind, column.rule.survivorship));
    assert_eq!(rule("shoe_size"), Some((ColumnType::Integer, Survivorship::Max)));
    assert_eq!(rule("name"), Some((ColumnType::Text, Survivorship::Longest)));
    assert_eq!(rule("备注"), Some((ColumnType::Text, Survivorship::MostRecent)));
    assert_eq!(rule("phone"), None);
}

#[test]
fn columns_that_do_not_fit_are_all_named() {
    let config = load("columns.good.toml");
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let names = ["手机号", "姓名", "性别", "消费(分)", "最后消费", "注册", "短信", "鞋码", "unionid", "rfm_r"];
    let findings = config.source_columns("pos", &Schema::new(names.map(text).to_vec())).expect_err("no plan");
    insta::assert_snapshot!(said(&findings), @r#"
    error: the source `pos` has no column `手机`
      --> columns.good.toml:10:9
       |
    10 | phone = "手机"
       |         ^^^^^^
       |
       = help: did you mean `手机号`?

    error: the source `pos` has no column `卡号`
      --> columns.good.toml:11:11
       |
    11 | card_no = "卡号"
       |           ^^^^^^
       |
       = help: its columns: 手机号, 姓名, 性别, 消费(分), 最后消费, 注册, 短信, 鞋码, unionid, rfm_r

    error: the source `pos` has a column `rfm_r`, and that name is a derived column
     --> columns.good.toml:4:10
      |
    4 | [sources.pos]
      |          ^^^
      |
      = help: give it another: columns = { other_name = "rfm_r" }

    error: `card_no` in the key of `pos` is none of its columns
     --> columns.good.toml:7:7
      |
    7 | key = ["card_no"]
      |       ^^^^^^^^^^^
      |
      = help: map the column with the rows' own id: columns = { record_id = "…" }, or name columns in `key`
    "#);
}

#[test]
fn a_source_without_mapping_uses_the_names_it_has() {
    let config = load("in-parts.good/reunion.toml");
    let fields = vec![Field::new("phone", DataType::Utf8, true), Field::new("shoe_size", DataType::Int32, true)];
    let plan = config.source_columns("pos", &Schema::new(fields)).expect("a plan");
    assert_eq!(plan.record_id, RecordId::Key(vec!["phone".into()]));
    assert_eq!(plan.columns[1].kind, ColumnType::Integer);
    let fields = vec![Field::new("record_id", DataType::Int64, true), Field::new("phone", DataType::Utf8, true)];
    let plan = config.source_columns("pos", &Schema::new(fields)).expect("a plan");
    assert_eq!(plan.record_id, RecordId::Column("record_id".into()));
}
