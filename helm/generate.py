"""Writes what the chart says of its values: `values.schema.json` and the table in `README.md`.

From three sources: `fanwire schema` for everything in `config`, `own.schema.json` for the types of the chart's own keys
(a text there is the name of a definition, an object without `type` and the like a section), and the comments of
`values.yaml` for what they mean. Each key has to be in both, with a comment.

    generate.py FANWIRE          writes them; FANWIRE is the built binary
    generate.py FANWIRE --check  says what is not up to date, and writes nothing
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import yaml

HERE = Path(__file__).parent
CHART = HERE / "fanwire"
TABLE = re.compile(r"(<!-- values: made by `make helm` -->\n).*?(<!-- end of values -->)", re.DOTALL)


def descriptions(text):
    """What the comments of `values.yaml` say, by the path of the key that they stand above."""
    found, path, comment = {}, [], []
    for line in text.splitlines():
        said = re.match(r"\s*#\s?(--\s)?(.*)", line)
        key = re.match(r"( *)([A-Za-z_]+):", line)
        if said:
            comment = [said[2]] if said[1] else comment and [*comment, said[2]]
            continue
        if key:
            depth = len(key[1]) // 2
            path = [*path[:depth], key[2]]
            if comment:
                found[".".join(path)] = " ".join(comment)
        comment = []
    return found


def is_section(written):
    # A section may have a key of the name `type`, whose own schema is an object then.
    said = isinstance(written, dict) and isinstance(written.get("type"), (str, list))
    return isinstance(written, dict) and not said and not {"enum", "anyOf"} & written.keys()


def keys(section, path=()):
    """The paths of all keys of the chart's own that are no sections."""
    for name, written in section.items():
        if is_section(written):
            yield from keys(written, (*path, name))
        else:
            yield ".".join((*path, name))


def typed(section, said, path=()):
    """The schema of a section."""
    properties = {}
    for name, written in section.items():
        place = (*path, name)
        if is_section(written):
            properties[name] = typed(written, said, place)
        else:
            refers = isinstance(written, str)
            schema = {"allOf": [{"$ref": f"#/definitions/{written}"}]} if refers else written
            properties[name] = {"description": said[".".join(place)], **schema}
    return {"type": "object", "additionalProperties": False, "properties": properties}


def plain(schema):
    """A schema in words that every version of Helm knows: `format` and `title` say nothing to a validator."""
    if isinstance(schema, list):
        return [plain(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    words = {"$schema", "format", "title"}
    return {
        # The names of properties are no words of the schema.
        word: {name: plain(inner) for name, inner in value.items()} if word == "properties" else plain(value)
        for word, value in schema.items()
        if word not in words
    }


def values_schema(configuration, own, said):
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$comment": "Made by `make helm` out of `fanwire schema`, own.schema.json and values.yaml.",
        **typed(own["properties"], said),
        "definitions": own["definitions"],
    }
    settings = plain(configuration)
    del settings["properties"]["$schema"]
    schema["properties"] = {
        "config": {**settings, "description": said["config"]},
        "global": {"description": "Values of a chart that this one is a part of; not used.", "type": "object"},
        **schema["properties"],
    }
    return schema


def table(own, said, defaults):
    rows = ["| value | default | what it is |", "| --- | --- | --- |"]
    for key in ["config", *keys(own["properties"])]:
        value = defaults
        for name in key.split("."):
            value = value[name]
        shown = json.dumps(value, ensure_ascii=False)
        shown = "see below" if key == "config" else f"`{shown}`" if len(shown) <= 60 else "see values.yaml"
        rows.append(f"| `{key}` | {shown} | {said[key].replace('|', '&#124;')} |")
    return "\n".join(rows) + "\n"


def faults(own, said, defaults):
    """Keys that are in one of the sources only."""

    def flat(values, section, path=()):
        for name, value in values.items():
            inside = section.get(name) if is_section(section) else None
            if isinstance(value, dict) and is_section(inside):
                yield from flat(value, inside, (*path, name))
            else:
                yield ".".join((*path, name))

    typed_keys = set(keys(own["properties"])) | {"config"}
    written = set(flat(defaults, own["properties"]))
    sources = {"own.schema.json": typed_keys, "values.yaml": written, "a comment in values.yaml": set(said)}
    every = set().union(*sources.values())
    return [f"{key}: is not in {name}" for name, known in sources.items() for key in sorted(every - known)]


def main(fanwire, check):
    own = json.loads((HERE / "own.schema.json").read_text())
    text = (CHART / "values.yaml").read_text()
    said, defaults = descriptions(text), yaml.safe_load(text)
    wrong = faults(own, said, defaults)
    if wrong:
        sys.exit("\n".join(wrong))
    configuration = json.loads(subprocess.check_output([fanwire, "schema"], text=True))
    readme = (CHART / "README.md").read_text()
    if not TABLE.search(readme):
        sys.exit("helm/fanwire/README.md: has no place for the table of values")
    schema = json.dumps(values_schema(configuration, own, said), indent=2, ensure_ascii=False) + "\n"
    made = {
        CHART / "values.schema.json": schema,
        CHART / "README.md": TABLE.sub(lambda place: place[1] + table(own, said, defaults) + place[2], readme),
    }
    for file, new in made.items():
        if check and file.read_text() != new:
            wrong.append(f"helm/{file.relative_to(HERE)}: is not up to date: run `make helm`")
        elif not check:
            file.write_text(new)
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:] == ["--check"])
