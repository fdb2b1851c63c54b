use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::*;

fn encoded<T: Serialize + ?Sized>(codec: Codec, value: &T) -> (Vec<u8>, Trust) {
    let mut out = Vec::new();
    let trust = encode(codec, value, &mut out).unwrap();
    (out, trust)
}

/// An iterator of unknown length within one that announces a wrong length.
struct Liar;

impl Serialize for Liar {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeSeq as _;
        let mut array = serializer.serialize_seq(Some(1))?;
        array.serialize_element(&Unknown)?;
        array.serialize_element(&2)?;
        array.end()
    }
}

struct Unknown;

impl Serialize for Unknown {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq((0..20).filter(|number| number % 2 == 0))
    }
}

#[test]
fn lengths_are_those_of_what_was_written() {
    let evens: Vec<u8> = (0..20).step_by(2).collect();
    for codec in [Codec::MessagePack, Codec::Json] {
        let (bytes, _) = encoded(codec, &Liar);
        let value: (Vec<u64>, u8) = codec.decode(&bytes).unwrap();
        assert_eq!(value, (evens.iter().copied().map(u64::from).collect(), 2), "{codec:?}");
    }
}

#[test]
fn bytes_are_bytes_in_messagepack_and_other_small_things_are_not() {
    #[derive(Serialize)]
    #[serde(untagged)]
    enum Mixed {
        Number(u8),
        Text(&'static str),
    }
    let (bytes, _) = encoded(Codec::MessagePack, &vec![1_u8, 200]);
    assert_eq!(bytes, [0xc4, 2, 1, 200]);
    let (mixed, _) = encoded(Codec::MessagePack, &[Mixed::Number(1), Mixed::Text("a")]);
    assert_eq!(mixed, [0x92, 1, 0xa1, b'a']);
    assert_eq!(encoded(Codec::Json, &vec![1_u8, 200]).0, b"[1,200]");
}

#[test]
fn a_failure_names_the_field() {
    #[derive(Serialize)]
    struct Outer {
        inner: std::collections::BTreeMap<&'static str, Inner>,
    }
    #[derive(Serialize)]
    enum Inner {
        Rates(f64, f64),
        Rate { per_hour: Option<f32> },
    }
    let inner = |inner| Outer { inner: [("first", Inner::Rates(0.5, 1.0)), ("second", inner)].into() };
    let why = |value: &Outer| encode(Codec::Json, value, &mut Vec::new()).unwrap_err().to_string();
    let rate = inner(Inner::Rate { per_hour: Some(f32::NAN) });
    assert_eq!(why(&rate), "field `inner.second.per_hour`: NaN has no JSON form");
    let rates = inner(Inner::Rates(f64::INFINITY, 0.0));
    assert_eq!(why(&rates), "field `inner.second`: inf has no JSON form");
    assert_eq!(encoded(Codec::MessagePack, &rate).1, Trust::Sure);
}

#[test]
fn only_what_can_be_lost_is_doubted() {
    #[derive(Serialize)]
    struct Common {
        id: u64,
        note: Option<String>,
        tags: Option<Vec<Option<bool>>>,
        unit: (),
    }
    let common = Common { id: 1, note: None, tags: Some(vec![None, Some(true)]), unit: () };
    for codec in [Codec::MessagePack, Codec::Json] {
        assert_eq!(encoded(codec, &common).1, Trust::Sure);
        assert_eq!(encoded(codec, &Some(None::<u8>)).1, Trust::Doubtful);
        assert_eq!(encoded(codec, &(0, Some(()))).1, Trust::Doubtful);
        assert_eq!(encoded(codec, &3_u128).1, Trust::Doubtful);
    }
}

#[test]
fn shapes_tell_apart_what_bytes_do_not_and_know_no_order_of_sets() {
    assert_ne!(fingerprint(&Some(None::<u8>)).unwrap(), fingerprint(&None::<Option<u8>>).unwrap());
    assert_ne!(fingerprint(&vec![Some(())]).unwrap(), fingerprint(&vec![None::<()>]).unwrap());
    let one: HashSet<u32> = (0..100).collect();
    let other: HashSet<u32> = (0..100).rev().collect();
    assert_eq!(fingerprint(&one).unwrap(), fingerprint(&other).unwrap());
    assert_ne!(fingerprint(&one).unwrap(), fingerprint(&(1..101).collect::<HashSet<u32>>()).unwrap());
}

/// Numbers of serde_json as a serializer and a deserializer see them with its feature
/// `arbitrary_precision`.
#[derive(Serialize, Deserialize)]
#[serde(rename = "$serde_json::private::Number")]
struct Number {
    #[serde(rename = "$serde_json::private::Number")]
    text: String,
}

#[test]
fn numbers_of_arbitrary_precision_are_numbers() {
    for text in ["2.5", "-7", "18446744073709551615", "1e3"] {
        let number = Number { text: text.to_owned() };
        for codec in [Codec::MessagePack, Codec::Json] {
            let (bytes, _) = encoded(codec, &number);
            let decoded: f64 = codec.decode(&bytes).unwrap();
            assert_eq!(decoded, text.parse::<f64>().unwrap(), "{codec:?}");
        }
        let (entries, _) = encoded(
            Codec::MessagePack,
            &std::collections::BTreeMap::from([("$serde_json::private::Number", text)]),
        );
        let read = Codec::MessagePack.value(&entries).unwrap();
        assert!(matches!(read, Value::Int(_) | Value::Uint(_) | Value::Float(_)), "{read:?}");
    }
    let wide = Number { text: "340282366920938463463374607431768211455".to_owned() };
    assert_eq!(encoded(Codec::Json, &wide).0, wide.text.as_bytes());
    assert!(encode(Codec::MessagePack, &wide, &mut Vec::new()).is_err());
}
