//! Refusals of who wants to know who is there, and of what a client says of itself.

use super::{refuse, refuse_with};
use crate::http1::{Response, quoted};
use crate::hub::presence::MEMBER_NAME_BYTES_MAX;

/// 400: who is there cannot be told among payloads alone.
pub(in crate::routes) fn presence_needs_envelope() -> Response {
    let detail = "Payloads alone could not be told from who comes and goes.";
    refuse("envelope-needed", 400, "Presence needs the envelope", detail, "Add \"envelope\" to the query.")
}

/// 400: nobody is told who is there in this topic.
#[must_use]
pub fn presence_off(topic: &str) -> Response {
    let detail = format!("The class of {} has no presence.", quoted(topic));
    let fix = "Leave it out, or start the server with presence=count or presence=list in a --topic-class.";
    refuse("presence-off", 400, "The topic has no presence", &detail, fix)
}

/// 400: presence where it cannot be told.
pub(in crate::routes) fn presence_not_here(what: &str) -> Response {
    let detail = format!("{what} cannot be told who is there.");
    let fix = "Leave it out, or use a WebSocket, an event stream or ?as=ndjson of the topic by its name.";
    refuse("presence-not-here", 400, "Presence cannot be told here", &detail, fix)
}

/// 400: the key is none. It is a secret, so it is not repeated.
pub(in crate::routes) fn bad_client_key() -> Response {
    let detail = "The client's key is not of 16 to 64 letters, digits, \"-\" and \"_\".";
    refuse("bad-client-key", 400, "The client's key cannot be read", detail, "Draw one at random, such as crypto.randomUUID().")
}

/// 400: the name is none.
pub(in crate::routes) fn bad_member_name(value: &str) -> Response {
    let detail = format!("The member's name cannot be {}.", quoted(value));
    let fix = "Use 1 to 64 bytes of UTF-8 without control characters, without space at its ends, and not beginning with \"@\".";
    let limits = vec![("limit_bytes", MEMBER_NAME_BYTES_MAX as u64)];
    refuse_with("bad-member-name", 400, "This is no member's name", &detail, fix, limits)
}

/// 403: members of the topic do not choose their names.
pub(in crate::routes) fn member_name_refused(topic: &str) -> Response {
    let detail = format!("The class of {} does not let members choose their names.", quoted(topic));
    let fix = "Leave \"member\" out, or start the server with presence-names=on in a --topic-class.";
    refuse("member-name-refused", 403, "Members do not choose their names here", &detail, fix)
}
