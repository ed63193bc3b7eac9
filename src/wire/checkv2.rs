//! The JSON of Rspamd's `/checkv2`, read as a client and written as a server. Pure. rspamd.com/doc/developers/protocol.html.
//!
//! Read tolerantly: what is missing or of another type is left out; only an answer without a score is none.

use serde_json::{Map, Value, json};

/// Symbols that are read of one answer; Rspamd has a thousand in all.
const SYMBOLS_MAX: usize = 200;
/// Header fields that are taken from one answer.
const HEADERS_MAX: usize = 50;

/// One reason.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Symbol {
    /// Its name.
    pub name: String,
    /// What it adds.
    pub score: f64,
    /// In words.
    pub description: String,
    /// What made it so.
    pub options: Vec<String>,
}

/// A judgement.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Judgement {
    /// `no action`, `greylist`, `add header`, `rewrite subject`, `soft reject`, `reject`, `quarantine`, `discard`.
    pub action: String,
    /// Sum of the symbols.
    pub score: f64,
    /// The score from which a message is refused.
    pub required_score: f64,
    /// Scores from which something is done, by action.
    pub thresholds: Vec<(&'static str, f64)>,
    /// All reasons.
    pub symbols: Vec<Symbol>,
    /// What to tell the client.
    pub smtp_message: Option<String>,
    /// Header fields to add: name, value.
    pub add_headers: Vec<(String, String)>,
    /// Names of header fields to remove.
    pub remove_headers: Vec<String>,
    /// The message's own id.
    pub message_id: String,
    /// Seconds that it took.
    pub seconds: f64,
}

impl Judgement {
    /// Reads an answer; nothing if it is none.
    pub fn parse(body: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(body).ok()?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let score = value["score"].as_f64().filter(|score| score.is_finite())?;
        let symbols = value["symbols"].as_object().into_iter().flatten().take(SYMBOLS_MAX);
        let symbol = |(name, symbol): (&String, &Value)| Symbol {
            name: name.clone(),
            score: symbol["score"].as_f64().unwrap_or_default(),
            description: text(&symbol["description"]).unwrap_or_default(),
            options: symbol["options"].as_array().into_iter().flatten().filter_map(text).collect(),
        };
        Some(Judgement {
            action: text(&value["action"])?,
            score,
            required_score: value["required_score"].as_f64().unwrap_or_default(),
            thresholds: Vec::new(),
            symbols: symbols.map(symbol).collect(),
            smtp_message: text(&value["messages"]["smtp_message"]),
            add_headers: headers(&value["milter"]["add_headers"]),
            remove_headers: Vec::new(),
            message_id: text(&value["message-id"]).unwrap_or_default(),
            seconds: value["time_real"].as_f64().unwrap_or_default(),
        })
    }

    /// Writes it as Rspamd does.
    pub fn to_json(&self) -> Value {
        let symbol = |symbol: &Symbol| {
            let body = json!({
                "name": symbol.name, "score": symbol.score, "metric_score": symbol.score,
                "description": symbol.description, "options": symbol.options,
            });
            (symbol.name.clone(), body)
        };
        let mut answer = json!({
            "is_skipped": false,
            "score": self.score,
            "required_score": self.required_score,
            "action": self.action,
            "thresholds": self.thresholds.iter().map(|(name, score)| ((*name).to_owned(), json!(score))).collect::<Map<_, _>>(),
            "symbols": self.symbols.iter().map(symbol).collect::<Map<_, _>>(),
            "messages": {},
            "message-id": self.message_id,
            "time_real": self.seconds,
            "milter": {
                "add_headers": self.add_headers.iter().map(|(name, value)| (name.clone(), json!({ "value": value, "order": 0 }))).collect::<Map<_, _>>(),
                "remove_headers": self.remove_headers.iter().map(|name| (name.clone(), json!(0))).collect::<Map<_, _>>(),
            },
        });
        if let Some(message) = &self.smtp_message {
            answer["messages"] = json!({ "smtp_message": message });
        }
        answer
    }
}

/// `{name: value}`, `{name: {value, order}}`, or lists of either. What could break out of a field is left out.
fn headers(value: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (name, value) in value.as_object().into_iter().flatten() {
        let one = std::slice::from_ref(value);
        for value in value.as_array().map_or(one, Vec::as_slice) {
            let text = value.as_str().or(value["value"].as_str());
            let fits = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':');
            if let Some(text) = text.filter(|_| fits && found.len() < HEADERS_MAX) {
                found.push((name.clone(), text.to_owned()));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_judgement_reads_back() {
        let judgement = Judgement {
            action: "add header".into(),
            score: 7.5,
            required_score: 15.0,
            thresholds: Vec::new(),
            symbols: vec![Symbol { name: "A".into(), score: 7.5, description: "d".into(), options: vec!["o".into()] }],
            smtp_message: Some("later".into()),
            add_headers: vec![("X-Spam".into(), "Yes".into())],
            remove_headers: Vec::new(),
            message_id: "1@x".into(),
            seconds: 0.25,
        };
        assert_eq!(Judgement::parse(judgement.to_json().to_string().as_bytes()), Some(judgement));
    }

    #[test]
    fn garbage_is_no_judgement_and_breaks_out_of_nothing() {
        for garbage in ["", "{}", "[]", r#"{"score": "x", "action": "reject"}"#, r#"{"score": 1}"#] {
            assert_eq!(Judgement::parse(garbage.as_bytes()), None, "{garbage}");
        }
        let odd = r#"{"score": 1, "action": "reject", "symbols": 5,
            "milter": {"add_headers": {"X A": "v", "X-B": ["1", {"value": "2"}], "X-C": 5}}}"#;
        let read = Judgement::parse(odd.as_bytes()).unwrap();
        assert_eq!(read.add_headers, [("X-B".to_owned(), "1".to_owned()), ("X-B".to_owned(), "2".to_owned())]);
    }
}
