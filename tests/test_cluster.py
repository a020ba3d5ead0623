"""The files of cluster/: against Ray's, AWS's and Kubernetes' own schemas; slurm.sh for real, with stand-ins for Slurm.

Each check of a file is a function that lists what is wrong with it; beside the file it also gets damaged copies.
"""

import copy
import json
import os
import re
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
CLUSTER = ROOT / "cluster"
FILES = sorted(CLUSTER.iterdir())
SLURM = CLUSTER / "slurm.sh"
CLOUDS = ("aws.yaml", "gcp.yaml")
README = (CLUSTER / "README.md").read_text(encoding="utf-8")
BIN = Path(sys.executable).parent
KUBERNETES = "1.35"
PINNED_RAY = re.compile(r"ray\[default,tune\]==([\w.]+)")

Yaml = dict[str, Any]


def text(name: str) -> str:
    return (CLUSTER / name).read_text(encoding="utf-8")


def document(name: str) -> Yaml:
    return yaml.safe_load(text(name))


def damaged(document: Yaml, path: str, value: Any) -> Yaml:
    """A copy with another value at a dotted path; None removes it."""
    copied = copy.deepcopy(document)
    *above, last = (int(name) if name.isdigit() else name for name in path.split("/"))
    place = copied
    for name in above:
        place = place[name]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return copied


# ray up


def ray_up_problems(config: Yaml) -> list[str]:
    """What is wrong with a configuration of `ray up`; Ray's own check raises."""
    util = import_module("ray.autoscaler._private.util")
    given = copy.deepcopy(config)
    prepared = util.prepare_config(config)
    util.validate_config(prepared)
    nodes = prepared["available_node_types"]
    head = nodes.pop(prepared["head_node_type"])
    starts = {name: " ".join(prepared[f"{name}_start_ray_commands"]) for name in ("head", "worker")}
    setup = " ".join(given["setup_commands"])
    checks = {
        "a head with a GPU": "GPU" not in head["resources"],
        "no GPU nodes": nodes and all(node["resources"]["GPU"] > 0 for node in nodes.values()),
        "nodes that never go": all(node["min_workers"] == 0 for node in nodes.values()),
        "no bound on nodes": all(0 < node["max_workers"] <= prepared["max_workers"] for node in nodes.values()),
        "idle nodes that stay": 0 < prepared["idle_timeout_minutes"] <= 15,
        "stopped nodes that go on costing": given["provider"]["cache_stopped_nodes"] is False,
        "a Ray without a token": all("RAY_AUTH_MODE=token" in start for start in starts.values()),
        "no token for the nodes": given["file_mounts"].get("~/.ray/auth_token") == "~/.ray/auth_token",
        "a token that others can read": "chmod 600 ~/.ray/auth_token" in " ".join(given["initialization_commands"]),
        "a dashboard for everybody": "--dashboard-host=127.0.0.1" in starts["head"] and "0.0.0.0" not in str(starts),
        "open ports": "IpPermissions" not in given["provider"].get("security_group", {}),
        "no driver": all("nvidia" in str(node) or "REPLACE_AMI" in str(node) for node in nodes.values()),
        "Ray's defaults after the set-up": given["head_setup_commands"] == [],
        "torch of any version": "--constraint ~/histpert/constraints.txt" in setup,
        "Ray of any version": PINNED_RAY.search(setup),
        "no shared folder": "/shared" in setup,
        "docker": not prepared["docker"],
    }
    missing = [
        path for path in given["file_mounts"].values() if not path.startswith("~") and not (ROOT / path).exists()
    ]
    return [name for name, is_right in checks.items() if not is_right] + missing


@pytest.mark.parametrize("name", CLOUDS)
def test_ray_up_accepts_the_configuration(name):
    assert ray_up_problems(document(name)) == []


@pytest.mark.parametrize("name", CLOUDS)
@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ("available_node_types/head/resources", {"CPU": 8, "GPU": 1}, "a head with a GPU"),
        ("available_node_types/gpu/resources", {"CPU": 8, "GPU": 0}, "no GPU nodes"),
        ("available_node_types/gpu/min_workers", 1, "nodes that never go"),
        ("available_node_types/gpu/max_workers", 0, "no bound on nodes"),
        ("idle_timeout_minutes", 600, "idle nodes that stay"),
        ("provider/cache_stopped_nodes", True, "stopped nodes that go on costing"),
        ("worker_start_ray_commands", ["ray start --address=$RAY_HEAD_IP:6379"], "a Ray without a token"),
        ("file_mounts/~\\.ray\\auth_token", None, "no token for the nodes"),
        ("initialization_commands", [], "a token that others can read"),
        ("head_start_ray_commands", None, "a dashboard for everybody"),
        ("provider/security_group", {"GroupName": "x", "IpPermissions": [{"FromPort": 8265}]}, "open ports"),
        ("head_setup_commands", None, KeyError),
        ("setup_commands", ["pip install ray"], "Ray of any version"),
        ("file_mounts/x", "no/such/file", "no/such/file"),
        ("no_such_setting", 1, jsonschema.ValidationError),
        ("available_node_types/gpu/resources", None, jsonschema.ValidationError),
        ("head_node_type", "other", KeyError),
        ("auth/password", "x", jsonschema.ValidationError),
    ],
)
def test_a_damaged_configuration_of_ray_up_is_seen(name, path, value, problem):
    config = document(name)
    if "\\" in path:  # a key with slashes in it
        del config["file_mounts"]["~/.ray/auth_token"]
    else:
        config = damaged(config, path, value)
    if isinstance(problem, str):
        assert problem in ray_up_problems(config)
    else:
        with pytest.raises((problem, ValueError)):
            ray_up_problems(config)


@pytest.fixture
def aws(tmp_path, monkeypatch) -> Iterator[Any]:
    """An AWS inside this process, where Ray sets up what `ray up` needs without waiting for it."""
    moto = import_module("moto")
    config = import_module("ray.autoscaler._private.aws.config")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("HOME", str(tmp_path))  # Ray leaves a key there
    monkeypatch.setattr(config.time, "sleep", lambda seconds: None)
    for cache in ("resource_cache", "client_cache"):  # of connections to another AWS
        getattr(import_module("ray.autoscaler._private.aws.utils"), cache).cache_clear()
    with moto.mock_aws(config={"iam": {"load_aws_managed_policies": True}}):
        yield config


def inbound(group: Yaml) -> list[tuple[Any, ...]]:
    """Who may come in by which port, from outside the group."""
    return [
        (rule.get("FromPort"), rule.get("ToPort"), *(addresses["CidrIp"] for addresses in rule["IpRanges"]))
        for rule in group["IpPermissions"]
        if [pair["GroupId"] for pair in rule["UserIdGroupPairs"]] != [group["GroupId"]]
    ]


@pytest.mark.parametrize("is_made_before", [False, True])
def test_aws_lets_in_ssh_and_nothing_else(aws, is_made_before):
    util = import_module("ray.autoscaler._private.util")
    ec2 = import_module("boto3").client("ec2", region_name="us-west-2")
    if is_made_before:
        vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
        made = ec2.create_security_group(GroupName="histpert", Description="Ray", VpcId=vpc)["GroupId"]
        ec2.authorize_security_group_ingress(
            GroupId=made, IpProtocol="tcp", FromPort=22, ToPort=22, CidrIp="198.51.100.7/32"
        )
    config = aws.bootstrap_aws(util.prepare_config(document("aws.yaml")))
    groups = ec2.describe_security_groups(GroupNames=["histpert"])["SecurityGroups"]
    assert [inbound(group) for group in groups] == [[(22, 22, "198.51.100.7/32" if is_made_before else "0.0.0.0/0")]]
    for node in config["available_node_types"].values():
        assert node["node_config"]["SecurityGroupIds"] == [groups[0]["GroupId"]]


# What nodes and images get


def handed_over(name: str) -> set[str]:
    """What of the checkout a file brings to the nodes or the image."""
    if name in CLOUDS:
        return {local for local in document(name)["file_mounts"].values() if not local.startswith("~")}
    copied = [line.split()[1:] for line in text(name).splitlines() if line.startswith("COPY")]
    return {word for words in copied for word in words[:-1] if not word.startswith("--")}


def test_what_is_handed_over_installs_as_the_three_rooms(tmp_path):
    wanted = handed_over("aws.yaml")
    assert handed_over("gcp.yaml") == handed_over("Dockerfile") == wanted
    assert "constraints.txt" in wanted
    for path in wanted:
        there = tmp_path / "in" / path
        there.parent.mkdir(exist_ok=True)
        source = ROOT / path
        shutil.copytree(source, there) if source.is_dir() else shutil.copyfile(source, there)
    build = "import setuptools.build_meta as backend; print(backend.build_wheel('..'))"
    done = subprocess.run(
        [sys.executable, "-c", build], cwd=tmp_path / "in", capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        rooms = {name.split("/")[0] for name in wheel.namelist() if ".dist-info" not in name}
    assert rooms == {"histpert", "studies", "analysis"}


def test_all_files_name_one_release_of_ray_that_the_package_accepts():
    named = {PINNED_RAY.search(text(name))[1] for name in (*CLOUDS, "Dockerfile")}
    named |= {ray_cluster()["rayVersion"], re.search(r"^FROM rayproject/ray:([\d.]+)-", text("Dockerfile"), re.M)[1]}
    assert len(named) == 1
    wanted = next(
        requirement
        for requirement in map(Requirement, metadata.requires("histpert") or [])
        if requirement.name == "ray" and not requirement.marker
    )
    assert wanted.specifier.contains(named.pop())
    assert {"default", "tune"} == wanted.extras


# Kubernetes


def closed(required: str, optional: str = "", **properties: Any) -> Yaml:
    """A JSON schema of an object that has these fields and no others."""
    names = [*required.split(), *optional.split()]
    return {
        "type": "object",
        "required": required.split(),
        "properties": {name: {} for name in names} | properties,
        "additionalProperties": False,
    }


COUNT = {"type": "integer", "minimum": 0}
PARAMETERS = {"type": "object", "additionalProperties": {"type": "string"}}
# KubeRay 1.6, https://docs.ray.io/en/master/cluster/kubernetes/references/api.html
RAY_CLUSTER = closed(
    "authOptions rayVersion headGroupSpec workerGroupSpecs enableInTreeAutoscaling",
    "suspend managedBy headServiceAnnotations gcsFaultToleranceOptions",
    authOptions=closed("mode secretName", mode={"const": "token"}, secretName={"type": "string"}),
    rayVersion={"type": "string"},
    enableInTreeAutoscaling={"const": True},
    autoscalerOptions=closed(
        "idleTimeoutSeconds",
        "resources image imagePullPolicy securityContext env envFrom volumeMounts",
        idleTimeoutSeconds=COUNT | {"maximum": 900},
        version={"enum": ["v1", "v2"]},
        upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]},
    ),
    headGroupSpec=closed(
        "template rayStartParams serviceType",
        "headService",
        serviceType={"const": "ClusterIP"},  # not one that the world reaches
        enableIngress={"const": False},
        rayStartParams=PARAMETERS,
    ),
    workerGroupSpecs={
        "type": "array",
        "minItems": 1,
        "items": closed(
            "groupName replicas minReplicas maxReplicas rayStartParams template",
            "suspend scaleStrategy",
            groupName={"type": "string"},
            replicas={"const": 0},
            minReplicas={"const": 0},
            maxReplicas=COUNT | {"minimum": 1},
            numOfHosts=COUNT,
            idleTimeoutSeconds=COUNT,
            rayStartParams=PARAMETERS,
        ),
    },
)
RAY_JOB = closed(
    "entrypoint rayClusterSpec shutdownAfterJobFinishes",
    "submitterPodTemplate metadata submitterConfig managedBy runtimeEnvYAML jobId suspend",
    entrypoint={"type": "string"},
    rayClusterSpec=RAY_CLUSTER,
    shutdownAfterJobFinishes={"const": True},
    ttlSecondsAfterFinished=COUNT,
    activeDeadlineSeconds=COUNT,
    backoffLimit=COUNT,
    submissionMode={"enum": ["K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode"]},
)
KINDS = {"RayCluster": RAY_CLUSTER, "RayJob": RAY_JOB}


def ray_cluster() -> Yaml:
    return document("kuberay-cluster.yaml")["spec"]


def kuberay_problems(document: Yaml) -> list[str]:
    """What is wrong with a RayCluster or RayJob."""
    outer = closed("apiVersion kind metadata spec", apiVersion={"const": "ray.io/v1"}, spec=KINDS[document["kind"]])
    try:
        jsonschema.validate(document, outer)
        spec = document["spec"]
        groups = [
            spec.get("rayClusterSpec", spec)["headGroupSpec"],
            *spec.get("rayClusterSpec", spec)["workerGroupSpecs"],
        ]
        for group in groups:
            pod = {"apiVersion": "v1", "kind": "Pod", **group["template"]}
            pod["metadata"] = {"name": "pod"} | pod["metadata"]
            kubernetes_validate.validate(pod, KUBERNETES, strict=True)
    except jsonschema.ValidationError as error:
        return [error.message]
    return [problem for group in groups for problem in pod_problems(group["template"], "groupName" in group)]


def pod_problems(template: Yaml, is_worker: bool) -> list[str]:
    first = template["spec"]["containers"][0]
    limits = first["resources"]["limits"]
    policy, volume = kubernetes_objects()["NetworkPolicy"], kubernetes_objects()["PersistentVolumeClaim"]
    chosen = policy["spec"]["podSelector"]["matchLabels"].items()
    claims = [volume["persistentVolumeClaim"]["claimName"] for volume in template["spec"]["volumes"]]
    checks = {
        "name": first["name"] == ("ray-worker" if is_worker else "ray-head"),
        "GPUs": ("nvidia.com/gpu" in limits) == is_worker,
        "requests are not limits": first["resources"]["requests"] == limits,
        "no policy": chosen <= template["metadata"]["labels"].items(),
        "no volume": claims == [volume["metadata"]["name"]],
        "volume not mounted": [mount["mountPath"] for mount in first["volumeMounts"]] == ["/shared"],
        "a token in the open": "RAY_AUTH_TOKEN" not in str(template),
        "image": first["image"] == "REPLACE_IMAGE",
    }
    return [name for name, is_right in checks.items() if not is_right]


def kubernetes_objects() -> dict[str, Yaml]:
    return {document["kind"]: document for document in yaml.safe_load_all(text("kuberay-shared.yaml"))}


@pytest.mark.parametrize("name", ["kuberay-cluster.yaml", "kuberay-job.yaml"])
def test_kuberay_accepts_the_file(name):
    assert kuberay_problems(document(name)) == []


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ("apiVersion", "ray.io/v1alpha1", "'ray.io/v1' was expected"),
        ("spec/authOptions", None, "'authOptions' is a required property"),
        ("spec/authOptions/mode", "disabled", "'token' was expected"),
        ("spec/authOptions/secretName", None, "'secretName' is a required property"),
        ("spec/authOptions/token", "x", "'token' was unexpected"),
        ("spec/headGroupSpec/serviceType", "LoadBalancer", "'ClusterIP' was expected"),
        ("spec/workerGroupSpecs/0/replicas", 1, "0 was expected"),
        ("spec/workerGroupSpecs/0/rayStartParams", {"num-gpus": 1}, "1 is not of type 'string'"),
        ("spec/headGroupSpec/template/spec/container", [], "'container' was unexpected"),
        ("spec/headGroupSpec/template/spec/containers/0/resources/limits/cpu", [], "[] is not"),
        ("spec/workerGroupSpecs/0/template/spec/containers/0/resources/limits/nvidia.com\\gpu", None, "GPUs"),
        ("spec/workerGroupSpecs/0/template/metadata/labels", {"app": "x"}, "no policy"),
        ("spec/headGroupSpec/template/spec/volumes/0/persistentVolumeClaim/claimName", "other", "no volume"),
        ("spec/headGroupSpec/template/spec/containers/0/env", [{"name": "RAY_AUTH_TOKEN", "value": "x"}], "a token in"),
        ("spec/headGroupSpec/template/spec/containers/0/name", "head", "name"),
    ],
)
def test_a_damaged_file_of_kuberay_is_seen(path, value, problem):
    config = document("kuberay-cluster.yaml")
    if "\\" in path:
        del config["spec"]["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]["resources"]["limits"][
            "nvidia.com/gpu"
        ]
    else:
        config = damaged(config, path, value)
    assert problem in " ".join(kuberay_problems(config))


def test_the_job_runs_on_the_same_ray_as_the_cluster():
    assert document("kuberay-job.yaml")["spec"]["rayClusterSpec"] == ray_cluster()


def test_kubernetes_accepts_volume_and_policy():
    objects = kubernetes_objects()
    for kubernetes_object in objects.values():
        kubernetes_validate.validate(kubernetes_object, KUBERNETES, strict=True)
    assert objects["PersistentVolumeClaim"]["spec"]["accessModes"] == ["ReadWriteMany"]
    policy = objects["NetworkPolicy"]["spec"]
    assert policy["policyTypes"] == ["Ingress"]
    ours, others = policy["ingress"]
    assert ours == {"from": [{"podSelector": policy["podSelector"]}]}
    assert others["ports"] == [{"port": 8265, "protocol": "TCP"}]
    assert all(source["podSelector"]["matchLabels"] for source in others["from"])


# Secrets


SECRETS = (
    r"\b[0-9a-fA-F]{32,}\b",  # a token of Ray
    r"\b[A-Za-z0-9+/]{40,}={0,2}(?![\w/.-])",
    r"\bAKIA[0-9A-Z]{16}\b",
    r"PRIVATE KEY",
    r"RAY_AUTH_TOKEN\s*[:=]",
    r"auth_token=(?!\"\$HOME/\.ray/auth_token\")",
    r"kind:\s*Secret\b",
    r"https?://[^/\s]+:[^/\s]+@",
)


def secrets_in(text: str) -> list[str]:
    return [found[0] for pattern in SECRETS for found in re.finditer(pattern, text)]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_no_file_holds_a_secret(file):
    assert secrets_in(file.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "leak",
    [
        "token: 5f2b6c0e9d7a4f3c8b1e2d3c4b5a6978",
        "RAY_AUTH_TOKEN: x",
        "export RAY_AUTH_TOKEN=x",
        "--from-literal=auth_token=x",
        "AKIA" + "ABCDEFGHIJKLMNOP",
        "kind: Secret",
        "c2VjcmV0IHRva2VuIG9mIHNvbWUgbGVuZ3RoIGZvciB0aGlz",
    ],
)
def test_a_secret_in_a_file_is_seen(leak):
    assert secrets_in(text("aws.yaml") + leak) != []


# Commands


def shell_lines(source: str) -> list[list[str]]:
    """The commands of a README's blocks and of comments, without what follows a separator of the shell."""
    blocks = re.findall(r"^```bash\n(.*?)^```", source, flags=re.M | re.S)
    return [shlex.split(line, comments=True) for block in blocks for line in joined(block).splitlines()]


def ray_words() -> list[list[str]]:
    """Every call of `ray` in the files, from the word behind it on."""
    lines = [
        word for file in FILES for word in re.findall(r"(?<![\w./-])(?:~/venv/bin/)?ray ([a-z][^;&|`\n]*)", said(file))
    ]
    return [line.split() for line in lines if line.split()[0] in import_module("ray.scripts.scripts").cli.commands]


def said(file: Path) -> str:
    return joined(file.read_text(encoding="utf-8"))


def joined(source: str) -> str:
    """A text with continued lines joined."""
    return re.sub(r"\\\n\s*|\n\s+(?=--)", " ", source)


def test_options_of_ray_exist():
    cli = import_module("ray.scripts.scripts").cli
    calls = ray_words()
    assert {words[0] for words in calls} >= {
        "up",
        "down",
        "start",
        "stop",
        "job",
        "dashboard",
        "get-auth-token",
        "rsync-up",
    }
    for words in calls:
        command = cli.commands[words[0]]
        if words[0] == "job":
            command = command.commands[words[1]]
        known = {option for parameter in command.params for option in parameter.opts + parameter.secondary_opts}
        end = words.index("--") if "--" in words else len(words)
        options = {re.split(r"[=`)]", word)[0] for word in words[:end] if word.startswith("--")}
        assert options - {""} <= known, words


@pytest.fixture(scope="module")
def study_options() -> set[str]:
    done = subprocess.run(
        [sys.executable, ROOT / "studies" / "bin_sweep.py", "--help"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env=os.environ | {"COLUMNS": "200"},
    )
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", done.stdout))


def test_options_of_the_study_exist(study_options):
    commands = [words for words in shell_lines(README) if "studies/bin_sweep.py" in words]
    commands.append(document("kuberay-job.yaml")["spec"]["entrypoint"].split())
    assert len(commands) >= 4
    used = {word for words in commands for word in words[words.index(next(filter(is_study, words))) :] if "--" in word}
    prose = set(re.findall(r"`(--[a-z-]+)", README)) - {"--working-dir"}
    assert used >= {"--screen", "--embeddings", "--out", "--gpus-per-trial", "--shards"}
    assert prose >= {"--store", "--store-cache", "--threads-per-trial"}
    assert (used | prose) <= study_options


def is_study(word: str) -> bool:
    return word.endswith("studies/bin_sweep.py")


def test_files_that_the_readme_names_exist_and_each_file_is_named():
    assert set(re.findall(r"cluster/([\w-]+\.\w+|Dockerfile)", "".join(map(said, FILES)))) <= {
        file.name for file in FILES
    }
    for file in FILES:
        assert file.name == "README.md" or file.name in README
    for target in re.findall(r"`make (\w+)`", README):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)


def test_the_readme_names_objects_by_their_names():
    secret = ray_cluster()["authOptions"]["secretName"]
    assert f"kubectl create secret generic {secret} --from-file=auth_token=" in README
    assert f"service/{document('kuberay-cluster.yaml')['metadata']['name']}-head-svc 8265" in README
    assert f"job/{document('kuberay-job.yaml')['metadata']['name']}" in README
    assert f"`{kubernetes_objects()['PersistentVolumeClaim']['metadata']['name']}`" in README


def test_an_upload_leaves_out_what_the_readme_says(tmp_path):
    for name in ("kept.py", ".git/x", ".venv/x", "venv/x", "__pycache__/x", "results/x", "screens/x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    shutil.copyfile(ROOT / ".gitignore", tmp_path / ".gitignore")
    (tmp_path / ".rayignore").write_text("screens/\n")
    packaging = import_module("ray._private.runtime_env.packaging")
    constants = import_module("ray._private.ray_constants")
    archive = tmp_path.with_suffix(".zip")
    packaging.create_package(
        str(tmp_path), archive, include_gitignore=True, excludes=constants.get_runtime_env_default_excludes()
    )
    names = {name for name in zipfile.ZipFile(archive).namelist() if not name.endswith("/")}
    assert {Path(name).name for name in names} == {"kept.py", ".gitignore", ".rayignore"}


# Slurm


def test_the_shell_accepts_the_script():
    subprocess.run(["bash", "-n", SLURM], check=True, timeout=20)
    lint = subprocess.run([BIN / "shellcheck", SLURM], capture_output=True, text=True, check=False, timeout=60)
    assert lint.returncode == 0, lint.stdout
    assert os.access(SLURM, os.X_OK)


def test_slurm_warns_early_enough_to_stop_and_queues_again():
    asked = dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(\S+))?$", text("slurm.sh"), flags=re.M))
    stops = int(re.search(r"^LONGEST_STOP_SECONDS=(\d+)", text("slurm.sh"), flags=re.M)[1])
    warning = re.fullmatch(r"B:USR1@(\d+)", asked["signal"])
    assert "requeue" in asked
    assert int(warning[1]) >= stops + 60 + 60  # Slurm may be a minute late, and Ray ends within another
    assert int(warning[1]) == 4 * 60  # what README.md says
    assert asked["ntasks-per-node"] == "1"


SRUN = """#!/usr/bin/env bash
while [[ $1 == -* ]]; do options+=" $1"; shift; done
echo "$options" >>"$STUBS/srun.log"
exec "$@"
"""
SCONTROL = """#!/usr/bin/env bash
echo "$@" >>"$STUBS/scontrol.log"
if [[ $1 == show ]]; then tr , '\\n' <<<"$3"; fi
"""
PROBE = """
import json, os, stat, sys, time
import ray
import psutil, requests

url = ray.init(log_to_driver=False, logging_level="ERROR").dashboard_url
path = os.environ["RAY_AUTH_TOKEN_PATH"]
session = ray._private.worker.global_worker.node.get_session_dir_path()
around = os.path.dirname(os.path.dirname(session))
token = open(path).read()

def answer(token, place="/api/jobs/"):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return requests.get(f"http://{url}{place}", headers=headers, timeout=20).status_code

job = psutil.Process().parent()
ours = [process for process in job.children(recursive=True) if process.pid != os.getpid()]
listeners = {}
for process in ours:
    try:
        found = process.net_connections(kind="inet")
    except psutil.Error:
        continue
    for connection in found:
        if connection.status == psutil.CONN_LISTEN:
            listeners[connection.laddr.port] = connection.laddr.ip

def is_open(port):
    try:
        return requests.get(f"http://127.0.0.1:{port}/metrics", timeout=3).ok
    except requests.RequestException:
        return False

everywhere = [port for port, address in listeners.items() if address in ("0.0.0.0", "::")]
said = {
    "address": os.environ["RAY_ADDRESS"],
    "mode": os.environ["RAY_AUTH_MODE"],
    "token_in_environment": "RAY_AUTH_TOKEN" in os.environ,
    "resources": ray.cluster_resources(),
    "n_nodes": sum(node["Alive"] for node in ray.nodes()),
    "permissions": [stat.S_IMODE(os.stat(place).st_mode) for place in (os.path.dirname(path), path, around)],
    "around": around,
    "token": token,
    "answers": [answer(None), answer("0" * 64), answer(token)],
    "listeners": listeners,
    "answer_everybody": [port for port in everywhere if is_open(port)],
    "told_all": [word for process in psutil.process_iter(["cmdline"]) for word in process.info["cmdline"] or []
                 if token in word],
    "processes": [process.pid for process in ours],
}
with open(sys.argv[1] + ".part", "w") as file:
    json.dump(said, file)
os.rename(sys.argv[1] + ".part", sys.argv[1])
try:
    time.sleep(float(sys.argv[2]))
except KeyboardInterrupt:
    sys.exit(130)
"""


class Allocation:
    """slurm.sh in an allocation of nodes that are all this machine."""

    def __init__(self, folder: Path, nodes: str):
        self.folder = folder
        stubs = folder / "stubs"
        for name in ("home", "tmp", "submit", "stubs"):
            (folder / name).mkdir()
        for name, script in {"srun": SRUN, "scontrol": SCONTROL}.items():
            (stubs / name).write_text(script)
            (stubs / name).chmod(0o755)
        (folder / "probe.py").write_text(PROBE)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SLURM_"))}
        self.environment = kept | {
            "HOME": str(folder / "home"),
            "TMPDIR": str(folder / "tmp"),
            "PATH": f"{stubs}{os.pathsep}{BIN}{os.pathsep}{os.environ['PATH']}",
            "STUBS": str(stubs),
            "VIRTUAL_ENV": str(BIN.parent),
            "RAY_AUTH_TOKEN": "of another cluster",
            "RAY_ADDRESS": "of.another.cluster:6379",
            "SLURM_JOB_ID": "7",
            "SLURM_SUBMIT_DIR": str(folder / "submit"),
            "SLURM_JOB_NODELIST": nodes,
            "SLURM_CPUS_PER_TASK": "1",
        }

    def start(self, *command: str | Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [SLURM, "--", *command],
            env=self.environment,
            cwd=self.folder / "submit",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def log(self, name: str) -> list[str]:
        file = self.folder / "stubs" / f"{name}.log"
        return file.read_text().splitlines() if file.exists() else []

    def left_over(self) -> list[str]:
        return [path.name for path in (self.folder / "submit").iterdir()]


LONGEST_START_SECONDS = 300
"""What slurm.sh gives Ray; a study that only starts may miss a signal."""


def run_probe(folder: Path, nodes: str, meanwhile: Callable[[subprocess.Popen[str]], None] | None = None) -> Yaml:
    """What the study saw, and how the job ended."""
    allocation = Allocation(folder, nodes)
    report = folder / "report.json"
    seconds = "300" if meanwhile else "0"
    process = allocation.start("python", folder / "probe.py", report, seconds)
    try:
        if meanwhile:
            end = time.monotonic() + LONGEST_START_SECONDS
            while not report.exists() and process.poll() is None:
                assert time.monotonic() < end, "the study did not start"
                time.sleep(0.2)
            meanwhile(process)
        output, _ = process.communicate(timeout=90)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert report.exists(), output
    return json.loads(report.read_text()) | {
        "status": process.returncode,
        "output": output,
        "left_over": allocation.left_over(),
        "home": [str(path.relative_to(folder / "home")) for path in (folder / "home").rglob("auth_token")],
        "scontrol": allocation.log("scontrol"),
        "srun": allocation.log("srun"),
    }


@pytest.fixture(scope="module")
def one_node(tmp_path_factory) -> Yaml:
    return run_probe(tmp_path_factory.mktemp("slurm"), "a")


@pytest.fixture(scope="module")
def two_nodes(tmp_path_factory) -> Yaml:
    return run_probe(tmp_path_factory.mktemp("slurm"), "a,b", lambda job: job.send_signal(signal.SIGUSR1))


def still_there(pids: list[int]) -> list[int]:
    """Those that do not end within some seconds; Slurm itself would kill what a step leaves."""

    def is_alive(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False

    end = time.monotonic() + 15
    while (alive := list(filter(is_alive, pids))) and time.monotonic() < end:
        time.sleep(0.2)
    return alive


@pytest.mark.ray
class TestOneNode:
    def test_the_study_finds_ray(self, one_node):
        assert one_node["status"] == 0, one_node["output"]
        assert one_node["resources"]["CPU"] == 1.0
        assert one_node["n_nodes"] == 1
        assert one_node["address"].startswith("127.0.0.1:")

    def test_a_request_without_the_token_is_refused(self, one_node):
        assert one_node["mode"] == "token"
        assert one_node["answers"] == [401, 403, 200]

    def test_everything_listens_on_loopback(self, one_node):
        assert len(one_node["listeners"]) > 3
        assert {address.removeprefix("::ffff:") for address in one_node["listeners"].values()} == {"127.0.0.1"}

    def test_nobody_else_can_read_the_token_or_reach_the_sockets(self, one_node):
        assert re.fullmatch("[0-9a-f]{64}", one_node["token"])
        assert [stat.filemode(mode) for mode in one_node["permissions"]] == ["?rwx------", "?rw-------", "?rwx------"]
        assert re.fullmatch(r"/tmp/ray-\w+", one_node["around"])
        assert not one_node["token_in_environment"]
        assert one_node["told_all"] == []
        assert one_node["token"] not in one_node["output"]

    def test_nothing_is_left(self, one_node):
        assert len(one_node["processes"]) > 3
        assert still_there(one_node["processes"]) == []
        assert one_node["left_over"] == []
        assert one_node["home"] == []
        assert not Path(one_node["around"]).exists()
        assert one_node["scontrol"] == ["show hostnames a"]


@pytest.mark.ray
class TestTwoNodes:
    def test_both_are_in_before_the_study_starts(self, two_nodes):
        assert two_nodes["n_nodes"] == 2
        assert two_nodes["resources"]["CPU"] == 2.0
        head, workers = two_nodes["srun"]
        assert {"--nodes=1", "--ntasks=1", "--nodelist=a"} <= set(head.split())
        assert {"--nodes=1", "--ntasks=1", "--exclude=a"} <= set(workers.split())

    def test_options_of_srun_exist(self, two_nodes):
        known = "export overlap ntasks-per-node cpus-per-task kill-on-bad-exit nodes ntasks nodelist exclude"
        used = {re.split("=", option)[0] for call in two_nodes["srun"] for option in call.split()}
        assert used == {f"--{name}" for name in known.split()}

    def test_they_know_each_other_by_the_address_of_the_network(self, two_nodes):
        assert not two_nodes["address"].startswith("127.")
        assert two_nodes["answers"] == [401, 403, 200]

    def test_the_head_listens_where_it_said_and_what_all_can_reach_wants_a_token(self, two_nodes):
        node = two_nodes["address"].split(":")[0]
        addresses = {address.removeprefix("::ffff:") for address in two_nodes["listeners"].values()}
        assert addresses <= {"127.0.0.1", node, "::"}  # `::` are Ray's own calls, which the token guards
        assert two_nodes["answer_everybody"] == []

    def test_the_job_stops_before_its_time_is_up_and_goes_to_the_queue_again(self, two_nodes):
        assert two_nodes["scontrol"] == ["show hostnames a,b", "requeue 7"], two_nodes["output"]
        assert two_nodes["status"] == 130
        assert two_nodes["left_over"] == []
        assert still_there(two_nodes["processes"]) == []


def test_a_ray_that_does_not_start_ends_the_job(tmp_path):
    allocation = Allocation(tmp_path, "a")
    broken = tmp_path / "stubs" / "ray"
    broken.write_text("#!/bin/sh\necho no room >&2\nexit 1\n")
    broken.chmod(0o755)
    process = allocation.start("touch", tmp_path / "study")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Ray did not start on a" in output
    assert "no room" in output
    assert not (tmp_path / "study").exists()
    assert allocation.left_over() == []


def test_a_script_outside_slurm_says_how_it_is_used(tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    done = subprocess.run(
        [SLURM, "--", "true"], env=environment, capture_output=True, text=True, check=False, timeout=20
    )
    assert done.returncode == 2
    assert "usage: sbatch" in done.stderr
