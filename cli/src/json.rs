//! JSON whose keys keep their order, as Docker prints it.

use std::collections::BTreeMap;

use gtmpl_ng::Value;
use serde::ser::{Serialize, SerializeMap, Serializer};

/// A JSON value.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Text(String),
    List(Vec<Json>),
    Object(Object),
}

/// An object in the making. Keys that begin with `_` are for templates only and are never printed;
/// one of null stands for an optional field that is not there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Object(Vec<(String, Json)>);

impl Object {
    pub fn new() -> Self {
        Self::default()
    }

    /// The object with one more field.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Json>) -> Self {
        self.0.push((key.into(), value.into()));
        self
    }

    /// The object with one more field, unless the value is empty (Go's `omitempty`).
    #[must_use]
    pub fn with_some(self, key: &str, value: impl Into<Json>) -> Self {
        let value = value.into();
        if value.is_empty() { self } else { self.with(key, value) }
    }

    pub fn get(&self, key: &str) -> Option<&Json> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v)
    }
}

impl Json {
    fn is_empty(&self) -> bool {
        match self {
            Self::Null => true,
            Self::Bool(value) => !value,
            Self::Unsigned(value) => *value == 0,
            Self::Signed(value) => *value == 0,
            Self::Text(value) => value.is_empty(),
            Self::List(value) => value.is_empty(),
            Self::Object(value) => value.0.is_empty(),
        }
    }

    /// The fields that a template may name.
    pub fn fields(&self) -> Vec<&str> {
        let Self::Object(object) = self else { return Vec::new() };
        let fields = object.0.iter().filter(|(key, value)| !key.starts_with('_') || *value == Self::Null);
        fields.map(|(key, _)| key.trim_start_matches('_')).collect()
    }

    /// One line.
    pub fn compact(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Indented by four spaces, as Docker's `inspect` prints.
    pub fn pretty(&self) -> String {
        let mut out = Vec::new();
        let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
        let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
        // Writing strings and numbers to memory cannot fail.
        let _ = self.serialize(&mut serializer);
        String::from_utf8(out).unwrap_or_default()
    }

    /// The value for a template: the outermost object is a record, in which a wrong field is an
    /// error; below, a missing key is empty.
    pub fn to_template(&self) -> Value {
        match self {
            Self::Object(object) => {
                let key = |k: &String, v: &Self| match (k.strip_prefix('_'), v) {
                    (Some(optional), Self::Null) => optional.to_owned(),
                    _ => k.clone(),
                };
                Value::Object(object.0.iter().map(|(k, v)| (key(k, v), v.to_template_inner())).collect())
            }
            other => other.to_template_inner(),
        }
    }

    fn to_template_inner(&self) -> Value {
        match self {
            Self::Null => Value::Nil,
            Self::Bool(value) => Value::Bool(*value),
            Self::Unsigned(value) => Value::from(*value),
            Self::Signed(value) => Value::from(*value),
            Self::Text(value) => Value::String(value.clone()),
            Self::List(values) => Value::Array(values.iter().map(Self::to_template_inner).collect()),
            Self::Object(object) => {
                Value::Map(object.0.iter().map(|(k, v)| (k.clone(), v.to_template_inner())).collect())
            }
        }
    }

    /// What a template hands to its `json` function, keys sorted.
    pub fn from_template(value: &Value) -> Self {
        match value {
            Value::NoValue | Value::Nil | Value::Function(_) => Self::Null,
            Value::Bool(value) => Self::Bool(*value),
            Value::String(value) => Self::Text(value.clone()),
            Value::Number(number) => match (number.as_u64(), number.as_i64()) {
                (Some(value), _) => Self::Unsigned(value),
                (None, Some(value)) => Self::Signed(value),
                (None, None) => Self::Text(number.to_string()),
            },
            Value::Array(values) => Self::List(values.iter().map(Self::from_template).collect()),
            Value::Object(map) | Value::Map(map) => {
                let sorted: BTreeMap<&String, &Value> = map.iter().collect();
                Self::Object(Object(sorted.into_iter().map(|(k, v)| (k.clone(), Self::from_template(v))).collect()))
            }
        }
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Unsigned(value) => serializer.serialize_u64(*value),
            Self::Signed(value) => serializer.serialize_i64(*value),
            Self::Text(value) => serializer.serialize_str(value),
            Self::List(values) => serializer.collect_seq(values),
            Self::Object(object) => {
                let mut map = serializer.serialize_map(None)?;
                for (key, value) in object.0.iter().filter(|(key, _)| !key.starts_with('_')) {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}

macro_rules! from {
    ($($t:ty => |$value:ident| $made:expr),+ $(,)?) => {$(
        impl From<$t> for Json {
            fn from($value: $t) -> Self { $made }
        }
    )+};
}
from! {
    bool => |v| Self::Bool(v),
    u16 => |v| Self::Unsigned(v.into()),
    u32 => |v| Self::Unsigned(v.into()),
    u64 => |v| Self::Unsigned(v),
    i32 => |v| Self::Signed(v.into()),
    i64 => |v| Self::Signed(v),
    &str => |v| Self::Text(v.into()),
    String => |v| Self::Text(v),
    &String => |v| Self::Text(v.clone()),
    Object => |v| Self::Object(v),
    &[String] => |v| Self::List(v.iter().map(Self::from).collect()),
    &Vec<String> => |v| Self::from(v.as_slice()),
    Vec<Json> => |v| Self::List(v),
    &BTreeMap<String, String> => |v| Self::Object(Object(v.iter().map(|(k, v)| (k.clone(), v.into())).collect())),
}

impl<T: Into<Json>> From<Option<T>> for Json {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// A list of whatever becomes JSON.
pub fn list<T, J: Into<Json>>(items: impl IntoIterator<Item = T>, make: impl Fn(T) -> J) -> Json {
    Json::List(items.into_iter().map(|item| make(item).into()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_keep_their_order_and_hidden_ones_are_not_printed() {
        let object = Object::new().with("b", 1u64).with("a", "x").with("_labels", "secret").with_some("c", "");
        assert_eq!(Json::from(object.clone()).compact(), r#"{"b":1,"a":"x"}"#);
        assert_eq!(Json::from(object).pretty(), "{\n    \"b\": 1,\n    \"a\": \"x\"\n}");
    }

    #[test]
    fn empty_lists_and_objects_print_as_docker_prints_them() {
        let object = Object::new().with("l", Json::List(vec![])).with("o", Object::new());
        assert_eq!(Json::from(object).pretty(), "{\n    \"l\": [],\n    \"o\": {}\n}");
    }

    #[test]
    fn what_went_through_a_template_comes_back_sorted() {
        let object: Json = Object::new().with("b", -1i64).with("a", true).into();
        assert_eq!(Json::from_template(&object.to_template()).compact(), r#"{"a":true,"b":-1}"#);
    }
}
