//! Values as arguments: they come back equal, or their kick is refused.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Debug;

use aioq::__private::{ArgsEncoder, ArgsReader, Param};
use aioq::message::{Codec, Payload};
use aioq::tasks::{KickOptions, TaskDef};
use aioq::{App, Client, ErrorKind, Memory, TaskError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;

const CODECS: [Codec; 2] = [Codec::MessagePack, Codec::Json];

const ONE: &[Param] = &[Param::required("value", "Value")];

/// The value that a worker reads, or the reason for a refused kick.
fn travelled<T: Serialize + DeserializeOwned>(codec: Codec, value: &T) -> Result<T, String> {
    let mut encoder = ArgsEncoder::new(codec);
    encoder.arg("value", value).map_err(|error| {
        assert_eq!(error.kind(), ErrorKind::Encode);
        error.to_string()
    })?;
    let arguments = encoder.finish();
    let mut reader: ArgsReader<'_> = arguments.reader(ONE).unwrap();
    Ok(reader.required(0).expect("what was kicked can be read"))
}

fn travels<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: T) {
    for codec in CODECS {
        assert_eq!(travelled(codec, &value).as_ref(), Ok(&value), "{codec:?}");
    }
}

fn refused<T: Serialize + DeserializeOwned + Debug>(codec: Codec, value: T, why: &str) {
    let refusal = travelled(codec, &value).expect_err("refused");
    assert!(refusal.starts_with("argument `value`: ") && refusal.contains(why), "{codec:?}: {refusal}");
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
enum Tagged {
    Wide { number: u128 },
    Bytes { data: Vec<u8> },
    ByNumber { names: BTreeMap<u32, String> },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Wide(i128),
    Text(String),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Flat {
    #[serde(flatten)]
    inner: Inner,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Inner {
    wide: Option<i128>,
    note: String,
}

/// Distinguishes a field that is `null` from an absent one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Patch {
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    name: Option<Option<String>>,
}

fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct UnitStruct;

#[test]
fn what_is_kicked_comes_back_equal() {
    travels((3_u128, -3_i128, u128::from(u64::MAX)));
    travels(Tagged::Bytes { data: vec![0, 200, 255] });
    travels(vec![Untagged::Text("a".to_owned())]);
    travels(Flat { inner: Inner { wide: None, note: "n".to_owned() } });
    travels(Some(Some(3)));
    travels(None::<Option<u8>>);
    for name in [None, Some(None), Some(Some("ann".to_owned()))] {
        travels(Patch { name });
    }
    travels(HashMap::from([(1_u8, HashSet::from(['a', 'b'])), (2, HashSet::new())]));
    travels(json!({"a": [1, -2, 2.5, null, "x", {"deep": true}]}));
    travels((1.5_f32, f64::MAX, UnitStruct, ()));
    assert_eq!(travelled(Codec::MessagePack, &(u128::MAX, i128::MIN)), Ok((u128::MAX, i128::MIN)));
    let nan = travelled(Codec::MessagePack, &Some(f64::NAN)).unwrap();
    assert!(nan.unwrap().is_nan());
    let by_number = Tagged::ByNumber { names: BTreeMap::from([(1, "one".to_owned())]) };
    assert_eq!(travelled(Codec::MessagePack, &by_number).as_ref(), Ok(&by_number));
}

#[test]
fn what_would_come_back_as_another_value_is_refused_by_the_kick() {
    for codec in CODECS {
        for number in [3, u128::from(u64::MAX) + 1] {
            refused(codec, Tagged::Wide { number }, "");
        }
        refused(codec, Flat { inner: Inner { wide: Some(3), note: String::new() } }, "read");
        refused(codec, vec![Untagged::Wide(3)], "read");
        refused(codec, Some(None::<u8>), "another value");
        refused(codec, vec![Some(())], "another value");
        refused(codec, Some(serde_json::Value::Null), "another value");
    }
    let names = BTreeMap::from([(1, "one".to_owned())]);
    refused(Codec::Json, Tagged::ByNumber { names }, "read");
    refused(Codec::Json, u128::MAX, "beyond 64 bits");
    refused(Codec::Json, HashMap::from([("rate".to_owned(), Some(f64::NAN))]), "field `rate`: NaN");
    refused(Codec::Json, BTreeMap::from([(vec![1], 1)]), "keys");
}

#[test]
fn a_result_without_a_form_is_refused_and_not_turned_into_another() {
    for codec in CODECS {
        assert!(codec.encode(&Some(())).is_err());
        assert_eq!(codec.encode(&()).unwrap().to_json(), "null");
    }
    let error = Codec::Json.encode(&(0, f32::INFINITY)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Encode);
}

/// A list within a list, and an enum within an enum, nested that deep.
#[derive(Debug, Serialize, Deserialize)]
enum Tower {
    Floor(Box<Tower>),
    Roof,
}

fn tower(levels: usize) -> Tower {
    (0..levels).fold(Tower::Roof, |below, _| Tower::Floor(Box::new(below)))
}

fn lists(levels: usize) -> serde_json::Value {
    (1..levels).fold(json!([]), |inner, _| json!([inner]))
}

fn on_a_small_stack(test: impl FnOnce() + Send + 'static) {
    // Half of the stack of tokio's threads.
    std::thread::Builder::new().stack_size(1024 * 1024).spawn(test).unwrap().join().unwrap();
}

#[test]
fn nesting_has_one_limit_on_both_ways_well_within_the_stack() {
    on_a_small_stack(|| {
        for codec in CODECS {
            travelled(codec, &tower(100)).unwrap();
            travelled(codec, &lists(100)).unwrap();
            // Read with casts, and printed.
            let deep = codec.encode(&(0..99).fold(json!("5"), |inner, _| json!([inner]))).unwrap();
            assert!(deep.decode::<Vec<Vec<u8>>>().is_err());
            assert_eq!(deep.to_json().len(), 2 * 99 + 3);
            refused(codec, lists(101), "nested deeper than 100 levels");
            let high = tower(3_000);
            refused_tower(codec, &high);
            std::mem::forget(high);
        }
    });
}

fn refused_tower(codec: Codec, high: &Tower) {
    let error = codec.encode(high).unwrap_err().to_string();
    assert!(error.contains("nested deeper than 100 levels"), "{error}");
}

#[test]
fn bytes_that_are_nested_without_end_are_refused() {
    on_a_small_stack(|| {
        let mut floors = [&[0x81, 0xa5][..], b"Floor"].concat().repeat(100_000);
        floors.extend(b"\xa4Roof");
        let messagepack = Payload::from_bytes(Codec::MessagePack, floors);
        let json = format!("{}\"Roof\"{}", "{\"Floor\":".repeat(100_000), "}".repeat(100_000));
        for payload in [messagepack, Payload::from_bytes(Codec::Json, json)] {
            let error = payload.decode::<Tower>().unwrap_err();
            assert_eq!((error.kind(), error.to_string().contains("100 levels")), (ErrorKind::Decode, true));
            assert_eq!(payload.to_json(), "null");
        }
    });
}

#[test]
fn an_argument_that_does_not_fit_is_not_quoted() {
    #[derive(Debug, Deserialize)]
    #[allow(dead_code)]
    enum Role {
        Admin,
    }

    fn why<T: DeserializeOwned + Debug>(value: &serde_json::Value) -> [String; 2] {
        CODECS.map(|codec| codec.encode(value).unwrap().decode::<T>().unwrap_err().to_string())
    }

    // Surplus values are neither dropped nor quoted.
    assert_eq!(why::<(i64,)>(&json!(["hunter2", 2]))[0], "invalid type: string, expected i64");
    assert!(why::<(i64,)>(&json!(["1", 2]))[0].starts_with("invalid length 2"));
    let secret = json!("hunter2");
    for (why, expected) in [
        (why::<i32>(&secret), "invalid type: string, expected i32"),
        (why::<Role>(&secret), "unknown variant, expected `Admin`"),
        (why::<std::net::IpAddr>(&secret), "the type refuses its value"),
        (why::<Inner>(&json!({"wide": "hunter2"})), "invalid type: string, expected i128"),
        (why::<Inner>(&json!({"wide": 1})), "missing field `note`"),
        (why::<(u8,)>(&json!([7000])), "invalid value: integer, expected u8"),
    ] {
        assert_eq!(why, [expected, expected]);
    }
}

#[test]
fn of_arguments_with_one_name_the_last_counts() {
    const PARAMS: &[Param] = &[Param::required("a", "i64"), Param::with_default("b", "i64")];
    let bodies: [&[u8]; 2] = [
        b"\x86\xa7task_id\xa11\xa9task_name\xa1t\xa6labels\x80\xaclabels_types\xc0\xa4args\x90\xa6kwargs\x83\xa1a\x01\xa1b\x05\xa1a\x02",
        br#"{"task_id":"1","task_name":"t","labels":{},"args":[],"kwargs":{"a":1,"b":5,"a":2}}"#,
    ];
    for body in bodies {
        let message = aioq::Message::open(&body.to_vec().into()).unwrap();
        let mut reader = message.arguments.reader(PARAMS).unwrap();
        assert_eq!(reader.required::<i64>(0).unwrap(), 2);
        assert_eq!(message.arguments.to_json(), r#"{"a":2,"b":5}"#);
    }
}

#[derive(Debug, Deserialize)]
struct Pair {
    a: i64,
    #[serde(default)]
    b: i64,
}

#[tokio::test]
async fn a_task_made_at_run_time_takes_what_an_annotated_one_takes() {
    let sum = TaskDef::from_fn("sum", |_ctx, Pair { a, b }| async move { Ok::<_, TaskError>(a + b) });
    let any = TaskDef::from_fn("any", |_ctx, all: BTreeMap<String, i64>| async move {
        Ok::<_, TaskError>(all.into_values().sum::<i64>())
    });
    let arguments = |args: &str, kwargs: &str| {
        let body =
            format!(r#"{{"task_id":"1","task_name":"sum","labels":{{}},"args":{args},"kwargs":{kwargs}}}"#);
        aioq::Message::open(&body.into_bytes().into()).unwrap().arguments
    };
    let why = |args, kwargs| sum.check(&arguments(args, kwargs)).unwrap_err().to_string();
    sum.check(&arguments("[]", r#"{"a":1}"#)).unwrap();
    sum.check(&arguments("[1]", "{}")).unwrap();
    sum.check(&arguments("[1, 2]", "{}")).unwrap();
    any.check(&arguments("[]", r#"{"x":1,"y":2}"#)).unwrap();
    assert!(why("[1, 2, 3]", "{}").contains("position"));
    assert!(why("[1]", r#"{"b":2}"#).contains("by name"));
    assert_eq!(why("[]", r#"{"a":1,"c":2}"#), "unexpected argument `c`: the task takes `a`, `b`");

    let worker = App::new(Memory::new()).task(sum).worker().await.unwrap();
    let client: Client = worker.client().clone();
    let handle = client.kiq_by_name("sum", &json!({"a": 1, "b": 2}), KickOptions::new()).await.unwrap();
    worker.drain().await.unwrap();
    assert_eq!(handle.record().await.unwrap().result.unwrap().to_json(), "3");
}
