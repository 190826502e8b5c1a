//! Which digest an image has, asked of its registry by this node's daemon.

use rswarm_api::{Wire, pb};
use rswarm_types::spec::{Platform, ServiceSpec};

use super::image::credentials;
use crate::client::Client;
use crate::errors::{Error, Result};
use crate::output::note;

/// What a registry said.
pub enum Resolution {
    /// The image with its digest, and the platforms it is made for.
    Known { reference: String, platforms: Vec<Platform> },
    /// The registry could not be asked; why.
    Unknown(String),
}

/// Asks for an image, with this user's credentials.
///
/// # Errors
/// When the reference or the file of credentials is wrong; a registry that does not answer is no
/// error.
pub async fn resolve(client: &Client, image: &str) -> Result<Resolution> {
    let request = pb::ResolveImageRequest { reference: image.to_owned(), registry_auth: credentials(image)? };
    match client.node(request, async |mut c, r| c.resolve_image(r).await).await {
        Ok(resolved) if !resolved.reference.contains('@') => Ok(Resolution::Unknown(resolved.warning)),
        Ok(resolved) => {
            Ok(Resolution::Known { reference: resolved.reference, platforms: Wire::from_pb(resolved.platforms)? })
        }
        Err(error @ (Error::Usage(_) | Error::NoManager(_))) => Err(error),
        Err(error) => Ok(Resolution::Unknown(error.to_string())),
    }
}

/// Puts digest and platforms into a spec, or says that they are not known and goes on.
///
/// # Errors
/// As [`resolve`].
pub async fn pin(client: &Client, spec: &mut ServiceSpec) -> Result<()> {
    let image = spec.task.container.image.clone();
    match resolve(client, &image).await? {
        Resolution::Known { reference, platforms } => put(spec, reference, platforms),
        Resolution::Unknown(why) => warn(&image, &why),
    }
    Ok(())
}

/// Puts an answer into a spec.
pub fn put(spec: &mut ServiceSpec, reference: String, platforms: Vec<Platform>) {
    spec.task.container.image = reference;
    spec.task.placement.platforms = platforms;
}

/// Docker's words, and the reason that Docker keeps to itself.
pub fn warn(image: &str, why: &str) {
    note(&format!(
        "warning: image {image} could not be accessed on a registry to record its digest. Each node will access {image} \
         independently, possibly leading to different nodes running different versions of the image.\n"
    ));
    if !why.is_empty() {
        note(&format!("         {}\n", why.replace('\n', "\n         ")));
    }
}
