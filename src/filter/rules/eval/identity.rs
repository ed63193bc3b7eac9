//! The functions of SpamAssassin's SPF, DKIM and DMARC plugins, answered from the symbols that the identity checks found. Pure.
//!
//! ADSP (RFC 5617) is historic and nobody publishes it: its functions are known and never hit.

use super::{Context, Function};

/// Rules of these names are there without any file, so that metas can name them and `score` lines can give them points.
pub const RULES: &str = "\
header SPF_PASS eval:check_for_spf_pass()\nheader SPF_NEUTRAL eval:check_for_spf_neutral()\n\
header SPF_NONE eval:check_for_spf_none()\nheader SPF_FAIL eval:check_for_spf_fail()\n\
header SPF_SOFTFAIL eval:check_for_spf_softfail()\nheader SPF_PERMERROR eval:check_for_spf_permerror()\n\
header SPF_TEMPERROR eval:check_for_spf_temperror()\nheader SPF_HELO_PASS eval:check_for_spf_helo_pass()\n\
header SPF_HELO_NONE eval:check_for_spf_helo_none()\nheader SPF_HELO_FAIL eval:check_for_spf_helo_fail()\n\
header SPF_HELO_SOFTFAIL eval:check_for_spf_helo_softfail()\nheader SPF_HELO_NEUTRAL eval:check_for_spf_helo_neutral()\n\
header DKIM_SIGNED eval:check_dkim_signed()\nheader DKIM_VALID eval:check_dkim_valid()\n\
header DKIM_VALID_AU eval:check_dkim_valid_author_sig()\nheader DKIM_VALID_EF eval:check_dkim_valid_envelopefrom()\n\
header DKIM_INVALID eval:check_dkim_invalid()\nheader DMARC_PASS eval:check_dmarc_pass()\n\
header DMARC_FAIL eval:check_dmarc_fail()\nheader DMARC_REJECT eval:check_dmarc_reject()\n\
header DMARC_QUAR eval:check_dmarc_quarantine()\nheader DMARC_NONE eval:check_dmarc_none()\n\
header DMARC_MISSING eval:check_dmarc_missing()\nheader ARC_SIGNED eval:check_arc_signed()\n\
header ARC_VALID eval:check_arc_valid()\nheader ARC_INVALID eval:check_arc_invalid()\n";
/// The name of these rules' file.
pub const FILE: &str = "identity";

macro_rules! symbols {
    ($(($name:literal, $symbol:literal)),+ $(,)?) => {
        /// By name.
        pub const FUNCTIONS: &[(&str, Function)] = &[
            $(($name, |context, _| has(context, $symbol)),)+
            ("check_dkim_adsp", |_, _| false),
            ("check_dkim_dependable", |context, _| has(context, "DKIM_VALID")),
            ("check_dkim_signall", |_, _| false),
            ("check_dkim_signsome", |_, _| false),
            ("check_dkim_testing", |_, _| false),
        ];
    };
}

symbols!(
    ("check_arc_invalid", "ARC_INVALID"),
    ("check_arc_signed", "ARC_SIGNED"),
    ("check_arc_valid", "ARC_VALID"),
    ("check_dkim_invalid", "DKIM_INVALID"),
    ("check_dkim_signed", "DKIM_SIGNED"),
    ("check_dkim_valid", "DKIM_VALID"),
    ("check_dkim_valid_author_sig", "DKIM_VALID_AU"),
    ("check_dkim_valid_envelopefrom", "DKIM_VALID_EF"),
    ("check_dmarc_fail", "DMARC_FAIL"),
    ("check_dmarc_missing", "DMARC_MISSING"),
    ("check_dmarc_none", "DMARC_NONE"),
    ("check_dmarc_pass", "DMARC_PASS"),
    ("check_dmarc_quarantine", "DMARC_QUAR"),
    ("check_dmarc_reject", "DMARC_REJECT"),
    ("check_for_spf_fail", "SPF_FAIL"),
    ("check_for_spf_helo_fail", "SPF_HELO_FAIL"),
    ("check_for_spf_helo_neutral", "SPF_HELO_NEUTRAL"),
    ("check_for_spf_helo_none", "SPF_HELO_NONE"),
    ("check_for_spf_helo_pass", "SPF_HELO_PASS"),
    ("check_for_spf_helo_permerror", "SPF_HELO_PERMERROR"),
    ("check_for_spf_helo_softfail", "SPF_HELO_SOFTFAIL"),
    ("check_for_spf_helo_temperror", "SPF_HELO_TEMPERROR"),
    ("check_for_spf_neutral", "SPF_NEUTRAL"),
    ("check_for_spf_none", "SPF_NONE"),
    ("check_for_spf_pass", "SPF_PASS"),
    ("check_for_spf_permerror", "SPF_PERMERROR"),
    ("check_for_spf_softfail", "SPF_SOFTFAIL"),
    ("check_for_spf_temperror", "SPF_TEMPERROR"),
);

fn has(context: &Context<'_, '_, '_>, name: &str) -> bool {
    context.texts.facts.symbols.iter().any(|symbol| symbol.name == name)
}
