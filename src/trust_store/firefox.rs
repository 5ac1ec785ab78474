//! Firefox's policies.json: `{"policies": {"Certificates": {"Install": ["FILE", …]}}}`. What others wrote there stays.

use std::{fs, io, path::Path};

use serde_json::{Map, Value, json};

use super::{Error, State, Step};

pub fn state(path: &Path, certificate: &Path) -> Result<State, Error> {
    let installed = read(path)?.is_some_and(|policies| {
        let install = policies.pointer("/policies/Certificates/Install").and_then(Value::as_array);
        install.is_some_and(|files| files.contains(&json!(certificate)))
    });
    Ok(if installed { State::Installed } else { State::Absent })
}

/// The text of the file at `path`, or of a new one, with the certificate's name added.
pub fn with(path: &Path, certificate: &Path) -> Result<String, Error> {
    let mut policies = read(path)?.unwrap_or_else(|| json!({}));
    let mut object = &mut policies;
    for key in ["policies", "Certificates"] {
        object = as_object(object, path, key)?.entry(key).or_insert_with(|| json!({}));
    }
    let files = as_object(object, path, "Certificates")?.entry("Install").or_insert_with(|| json!([]));
    files.as_array_mut().ok_or_else(|| shape(path, "Install is no list"))?.push(json!(certificate));
    Ok(format!("{policies:#}\n"))
}

pub fn install(path: &Path, certificate: &Path) -> Result<Step, Error> {
    Ok(Step::Write { path: path.to_owned(), text: with(path, certificate)? })
}

/// Takes the file's name out, with the objects that hold nothing else; a file that then says nothing goes as well.
pub fn uninstall(path: &Path, certificate: &Path) -> Result<Step, Error> {
    let mut policies = read(path)?.unwrap_or_else(|| json!({}));
    if let Some(files) = policies.pointer_mut("/policies/Certificates/Install").and_then(Value::as_array_mut) {
        files.retain(|file| *file != json!(certificate));
    }
    for (parent, key) in [("/policies/Certificates", "Install"), ("/policies", "Certificates"), ("", "policies")] {
        if let Some(object) = policies.pointer_mut(parent).and_then(Value::as_object_mut)
            && object.get(key).is_some_and(is_empty)
        {
            object.remove(key);
        }
    }
    Ok(match is_empty(&policies) {
        true => Step::Remove { path: path.to_owned() },
        false => Step::Write { path: path.to_owned(), text: format!("{policies:#}\n") },
    })
}

fn is_empty(value: &Value) -> bool {
    *value == json!({}) || *value == json!([])
}

fn as_object<'a>(value: &'a mut Value, path: &Path, name: &str) -> Result<&'a mut Map<String, Value>, Error> {
    value.as_object_mut().ok_or_else(|| shape(path, &format!("what {name} is in is no object")))
}

fn shape(path: &Path, reason: &str) -> Error {
    Error::Shape { path: path.to_owned(), reason: reason.to_owned() }
}

fn read(path: &Path) -> Result<Option<Value>, Error> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file("read", path)(error)),
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| shape(path, &error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_stays() {
        let directory = tempfile::tempdir().unwrap();
        let (path, ours) = (directory.path().join("policies.json"), Path::new("/ca.pem"));
        for before in [
            None,
            Some(json!({"policies": {"DisableTelemetry": true}})),
            Some(json!({"policies": {"Certificates": {"ImportEnterpriseRoots": true}}})),
            Some(json!({"policies": {"Certificates": {"Install": ["/corp.pem"]}}, "comment": 1})),
        ] {
            if let Some(before) = &before {
                fs::write(&path, before.to_string()).unwrap();
            }
            assert_eq!(state(&path, ours).unwrap(), State::Absent);
            install(&path, ours).unwrap().carry_out().unwrap();
            assert_eq!(state(&path, ours).unwrap(), State::Installed);
            uninstall(&path, ours).unwrap().carry_out().unwrap();
            assert_eq!(read(&path).unwrap(), before);
        }
    }

    #[test]
    fn a_file_of_another_shape_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("policies.json");
        for text in ["", "[]", r#"{"policies": []}"#, r#"{"policies": {"Certificates": {"Install": "x"}}}"#] {
            fs::write(&path, text).unwrap();
            assert!(matches!(install(&path, Path::new("/ca.pem")), Err(Error::Shape { .. })), "{text}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }
}
