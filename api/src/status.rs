//! Refusals as gRPC statuses, and back: the text is for people, the details for programs.

use prost::Message;
use rswarm_types::Refusal;
use tonic::{Code, Status};

use crate::wire::Wire;
use crate::{WireError, pb};

/// The status that carries a refusal whole.
pub fn from_refusal(refusal: &Refusal) -> Status {
    let code = match refusal {
        Refusal::Invalid(_) => Code::InvalidArgument,
        Refusal::NotFound { .. } => Code::NotFound,
        Refusal::Conflict(_) => Code::AlreadyExists,
        Refusal::Stale { .. } => Code::Aborted,
        Refusal::Denied(_) => Code::PermissionDenied,
        Refusal::Exhausted(_) => Code::ResourceExhausted,
        Refusal::Unsupported(_) => Code::Unimplemented,
    };
    Status::with_details(code, refusal.to_string(), refusal.to_pb().encode_to_vec().into())
}

/// The refusal in a status, if one is there.
pub fn to_refusal(status: &Status) -> Option<Refusal> {
    if status.details().is_empty() {
        return None;
    }
    Refusal::from_pb(pb::Refusal::decode(status.details()).ok()?).ok()
}

/// A message that this build cannot read is the caller's mistake.
pub fn from_wire(error: WireError) -> Status {
    Status::invalid_argument(error.to_string())
}
