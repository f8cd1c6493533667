//! A request against the resources there are: which one its path names, and what its method asks of it.

use super::page::{self, Page};
use super::{Action, Drain, Options, cors, presence, refusals, topics, well_known};
use crate::auth::Grant;
use crate::http1::{Body, Head, Method, Response};
use crate::metrics::Handler;
use crate::v1;
use crate::ws::{self, Handshake, Intent};

/// What a socket of topics may speak beside raw payloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subprotocol {
    /// `fantail.v1`.
    V1,
}

/// What may be agreed on for topics. There are no extensions in this version.
const FOR_TOPICS: ws::Table<Subprotocol> = ws::Table {
    entries: &[ws::Entry {
        offered_in: ws::OfferedIn::Protocol,
        name: v1::SUBPROTOCOL,
        accept: |_| Some(ws::Agreement { params: String::new(), transform: Subprotocol::V1 }),
    }],
};

/// What may be agreed on for the echo: nothing.
const FOR_ECHO: ws::Table<Subprotocol> = ws::Table { entries: &[] };

/// A request with everything that is known of it before its path is read.
pub(super) struct Question<'r> {
    pub(super) head: &'r Head<'r>,
    pub(super) options: &'r Options,
    pub(super) handshake: Handshake<'r>,
    pub(super) intent: Intent,
    pub(super) grant: Grant,
    pub(super) listener_is_loopback: bool,
    pub(super) drain: Drain,
    pub(super) wants_events: bool,
}

/// What a path names.
#[derive(Clone, Copy)]
pub(super) enum Resource<'p> {
    /// `/topics/NAME`, the name still encoded.
    Topic(&'p str),
    /// `/topics`, the names in the query.
    Topics,
    Bye,
    Echo,
    Health,
    WellKnown,
    Page(&'static Page),
    /// The base path without its slash, from which a page's relative links would lead astray.
    BaseWithoutSlash,
    /// `*`, the server as a whole (RFC 9110 section 9.3.7).
    Server,
}

impl<'r> Question<'r> {
    /// Whether the request does something, or asks whether it may: then a foreign page is refused.
    pub(super) fn acts(&self) -> bool {
        let writes = matches!(self.head.method, Method::Post | Method::Delete);
        writes || self.intent != Intent::None || self.wants_events || cors::is_preflight(self.head)
    }

    /// What to do with a resource, or the refusal.
    pub(super) fn action(&self, resource: Resource<'_>) -> Result<Action, Response> {
        let allow = resource.allow();
        match (self.head.method, resource) {
            (Method::Post, Resource::Bye) => presence::bye(self),
            (Method::Options, _) => Ok(Action::Respond(cors::options(self.head, allow))),
            (Method::Get | Method::Head, _) => self.get(resource),
            // An upgrade is one whatever its method; the handshake has the words for all but GET.
            (Method::Post, Resource::Topic(_) | Resource::Topics | Resource::Echo) if self.intent == Intent::WebSocket => {
                self.get(resource)
            }
            (Method::Post, Resource::Topic(name)) => topics::post(self, name),
            (Method::Post, Resource::Topics) => topics::post_batch(self),
            (Method::Delete, Resource::Topic(name)) => topics::delete(self, name),
            (Method::Post | Method::Delete | Method::Other, _) => Err(refusals::method_not_allowed(allow)),
        }
    }

    fn get(&self, resource: Resource<'_>) -> Result<Action, Response> {
        let response = match resource {
            Resource::Topic(name) => return topics::get(self, Some(name)),
            Resource::Topics => return topics::get(self, None),
            Resource::Echo => return self.echo(),
            Resource::Health => self.health(),
            Resource::WellKnown => well_known::well_known(self.options),
            Resource::Page(page) => page::page(self.head, page),
            Resource::BaseWithoutSlash => Response::new(308).header("Location", format!("{}/", self.options.prefix())),
            Resource::Bye => return Err(refusals::method_not_allowed(resource.allow())),
            Resource::Server => return Err(refusals::method_not_allowed("OPTIONS")),
        };
        Ok(Action::Respond(response))
    }

    /// What the path names.
    pub(super) fn resource(&self) -> Result<Resource<'r>, Response> {
        let (path, loopback) = (self.head.path, self.listener_is_loopback);
        let below = path.strip_prefix(self.options.prefix());
        Ok(match below {
            _ if path == "*" => Resource::Server,
            Some("") => Resource::BaseWithoutSlash,
            Some("/topics") => Resource::Topics,
            Some("/bye") => Resource::Bye,
            Some("/healthz") => Resource::Health,
            Some("/.well-known/fantail") => Resource::WellKnown,
            Some("/cometd") => return Err(refusals::bayeux_not_yet()),
            Some("/echo") if loopback || self.options.echo => Resource::Echo,
            Some("/") if loopback || self.options.page => Resource::Page(&page::INDEX),
            Some("/chat.html") if loopback || self.options.page => Resource::Page(&page::CHAT),
            Some("/fantail.js") if loopback || self.options.page => Resource::Page(&page::MODULE),
            Some("/fantail.d.ts") if loopback || self.options.page => Resource::Page(&page::MODULE_TYPES),
            Some("/echo") => return Err(refusals::only_on_loopback("The echo", "Start the server with --echo.")),
            Some("/" | "/chat.html" | "/fantail.js" | "/fantail.d.ts") => {
                return Err(refusals::only_on_loopback("The page", "Start the server with --page."));
            }
            Some(other) => Resource::Topic(other.strip_prefix("/topics/").ok_or_else(|| self.not_found())?),
            None => return Err(self.not_found()),
        })
    }

    fn not_found(&self) -> Response {
        let base = self.options.prefix();
        let known = format!(
            "{base}/topics/NAME, {base}/topics?topic=A&topic=B, {base}/bye, {base}/healthz, {base}/.well-known/fantail and, \
             on loopback listeners, {base}/, {base}/chat.html, {base}/fantail.js and {base}/echo"
        );
        refusals::not_found(self.head.path, &known)
    }

    fn echo(&self) -> Result<Action, Response> {
        self.refuse_if_draining()?;
        Ok(Action::Echo(Box::new(self.negotiate(&FOR_ECHO)?)))
    }

    /// The answered handshake of a socket of topics, or why there is none.
    pub(super) fn negotiate_topics(&self) -> Result<ws::Accepted<Subprotocol>, Response> {
        self.negotiate(&FOR_TOPICS)
    }

    /// A plain GET of `/echo` is told what a handshake lacks.
    fn negotiate(&self, offers: &ws::Table<Subprotocol>) -> Result<ws::Accepted<Subprotocol>, Response> {
        self.handshake.negotiate(self.head, offers).map_err(ws::HandshakeError::into_response)
    }

    fn health(&self) -> Response {
        let (status, text): (_, &'static [u8]) = if self.drain == Drain::No { (200, b"ok") } else { (503, b"draining") };
        let response =
            Response::new(status).header("Content-Type", "text/plain; charset=utf-8").header("Cache-Control", "no-store");
        response.body(Body::Static(text))
    }

    /// For what would begin something new.
    pub(super) fn refuse_if_draining(&self) -> Result<(), Response> {
        if self.drain == Drain::Refusing { Err(refusals::draining()) } else { Ok(()) }
    }

    /// A refused upgrade ends the connection: what follows it may be frames already.
    pub(super) fn refused(&self, refusal: Response) -> Response {
        if self.intent == Intent::None { refusal } else { refusal.close() }
    }
}

impl Resource<'_> {
    /// The label of its requests' metric.
    pub(super) const fn handler(&self) -> Handler {
        match self {
            Self::Topic(_) | Self::Topics => Handler::Topics,
            Self::Bye => Handler::Bye,
            Self::Echo => Handler::Echo,
            Self::Health => Handler::Healthz,
            Self::WellKnown => Handler::WellKnown,
            Self::Page(_) => Handler::Page,
            Self::BaseWithoutSlash | Self::Server => Handler::Other,
        }
    }

    /// The methods it has.
    const fn allow(&self) -> &'static str {
        match self {
            Self::Topic(_) | Self::Server => "GET, HEAD, POST, DELETE, OPTIONS",
            Self::Topics => "GET, HEAD, POST, OPTIONS",
            Self::Bye => "POST, OPTIONS",
            _ => "GET, HEAD, OPTIONS",
        }
    }
}
