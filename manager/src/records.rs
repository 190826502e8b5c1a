//! A state as the bytes of a snapshot: length-delimited records, the specs of tasks once each.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use prost::Message;
use rswarm_api::{Wire, pb};
use rswarm_store::State;
use rswarm_types::command::Record;
use rswarm_types::spec::ServiceSpec;

/// Bytes of one record: no object of the cluster comes near it.
const RECORD_BYTES_MAX: usize = 16 << 20;

/// Writes every record of a state. Of the tasks that share a spec only the first one brings it.
///
/// # Errors
/// Those of `out`.
pub fn write(state: &State, out: &mut dyn io::Write) -> io::Result<()> {
    let nothing = Arc::new(ServiceSpec::default());
    // By address: the state keeps every spec where it is for as long as it is written.
    let mut places: BTreeMap<*const ServiceSpec, u32> = BTreeMap::new();
    for mut record in state.records() {
        let mut shared_spec = None;
        if let Record::Task(task) = &mut record {
            let next = u32::try_from(places.len()).map_err(|_| bad("too many specs for a snapshot"))?;
            let place = *places.entry(Arc::as_ptr(&task.spec)).or_insert(next);
            if place < next {
                task.spec = Arc::clone(&nothing);
                shared_spec = Some(place);
            }
        }
        let mut pb = record.to_pb();
        if let (Some(_), Some(pb::record::Record::Task(task))) = (shared_spec, &mut pb.record) {
            task.spec = None;
        }
        pb.shared_spec = shared_spec;
        out.write_all(&pb.encode_length_delimited_to_vec())?;
    }
    Ok(())
}

/// Reads records to the end; tasks share their specs as they did where they were written.
///
/// # Errors
/// Those of `input`, and `InvalidData` for what [`write`] does not write.
pub fn read(input: &mut dyn io::Read) -> io::Result<Vec<Record>> {
    let nothing = ServiceSpec::default().to_pb();
    let mut specs: Vec<Arc<ServiceSpec>> = Vec::new();
    let mut records = Vec::new();
    while let Some(mut pb) = read_one(input)? {
        let shared = pb.shared_spec.map(|place| {
            let spec = usize::try_from(place).ok().and_then(|place| specs.get(place));
            spec.cloned().ok_or_else(|| bad(format!("a task shares spec {place}; the snapshot has {}", specs.len())))
        });
        let shared = shared.transpose()?;
        if let (Some(_), Some(pb::record::Record::Task(task))) = (&shared, &mut pb.record) {
            task.spec = Some(nothing.clone());
        }
        let mut record = Record::from_pb(pb).map_err(|e| bad(e.to_string()))?;
        if let Record::Task(task) = &mut record {
            match shared {
                Some(spec) => task.spec = spec,
                None => specs.push(Arc::clone(&task.spec)),
            }
        }
        records.push(record);
    }
    Ok(records)
}

fn read_one(input: &mut dyn io::Read) -> io::Result<Option<pb::Record>> {
    let mut length = 0usize;
    for place in 0..10 {
        let mut byte = [0];
        if input.read(&mut byte)? == 0 {
            return if place == 0 { Ok(None) } else { Err(bad("a snapshot record is cut off")) };
        }
        length |= usize::from(byte[0] & 0x7f) << (7 * place);
        if byte[0] & 0x80 == 0 {
            break;
        }
    }
    if length > RECORD_BYTES_MAX {
        return Err(bad(format!("a snapshot record of {length} bytes; at most {RECORD_BYTES_MAX} are allowed")));
    }
    let mut bytes = vec![0; length];
    input.read_exact(&mut bytes)?;
    pb::Record::decode(&bytes[..]).map(Some).map_err(|e| bad(e.to_string()))
}

fn bad(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::orchestrate::harness::{Lab, replicated};

    /// Two services in the middle of an update: tasks of four specs.
    fn state() -> State {
        let mut lab = Lab::new(4);
        for id in [50, 51] {
            let mut spec = replicated(&format!("web{id}"), 50);
            spec.task.container.env = (0..50).map(|n| format!("VARIABLE_{n}=some value of it")).collect();
            let service = lab.create(id, spec);
            lab.settle();
            lab.update(service, |spec| spec.task.container.env.push("NEW=1".into()));
            lab.settle();
        }
        lab.state
    }

    #[test]
    fn a_snapshot_holds_each_spec_once_and_gives_the_same_state_back() {
        let state = state();
        let mut bytes = Vec::new();
        write(&state, &mut bytes).unwrap();
        let spec = state.services().next().unwrap().spec.to_pb().encoded_len();
        let each = (bytes.len() - 8 * spec) / state.task_count();
        assert!(spec > 1_500 && each < 400, "a spec has {spec} bytes, a task {each}");
        let restored = State::from_records(read(&mut &bytes[..]).unwrap()).unwrap();
        assert_eq!(restored.digest(), state.digest());
        for task in restored.tasks() {
            let mate = restored.tasks_of_service(task.service).find(|mate| mate.spec == task.spec).unwrap();
            assert!(Arc::ptr_eq(&mate.spec, &task.spec), "what is equal is shared");
        }
        let mut again = Vec::new();
        write(&restored, &mut again).unwrap();
        assert!(again == bytes, "a restored state writes the same bytes");
    }

    #[test]
    fn damaged_records_are_refused() {
        let mut bytes = Vec::new();
        write(&state(), &mut bytes).unwrap();
        assert!(read(&mut &bytes[..bytes.len() - 1]).is_err());
        let task = pb::Record { shared_spec: Some(0), ..Record::Task(Box::default()).to_pb() };
        let error = read(&mut &task.encode_length_delimited_to_vec()[..]).unwrap_err();
        assert!(error.to_string().contains("shares spec 0"), "{error}");
    }
}
