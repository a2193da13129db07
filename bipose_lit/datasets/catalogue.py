"""What data sets there are: where from, under which terms, how many of what, which defects. Facts alone, nothing heavy imported.

Every number says where it was read. None of it was downloaded from its home by this project's authors, so addresses, sizes
and checksums are as others published them; where no published checksum was found there is none here.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from bipose_lit.datasets.catalogue_entry import CLICK, HAND, OPEN, OWN, REQUEST, DataSet, Download
from bipose_lit.types import BiposeError

_COCO = "http://images.cocodataset.org"
_MPII = "https://datasets.d2.mpi-inf.mpg.de/andriluka14cvpr"
_JHMDB = "https://files.is.tue.mpg.de/jhmdb"
_JHMDB_LABELS = (
    Download(
        f"{_JHMDB}/joint_positions.zip", "joint_positions.zip", "md5:3d1ac91bcb8544ddfdd9547997db239f", 14_177_716,
        about="joints",
    ),
    Download(
        f"{_JHMDB}/puppet_mask.zip", "puppet_mask.zip", "md5:eebf6c6c71faa16709b709b758710d17",
        about="the person's pixels, from which the published measure takes its size",
    ),
)  # fmt: skip
_JHMDB_PIXELS = (
    Download(
        f"{_JHMDB}/JHMDB_video.zip", "JHMDB_video.zip", "md5:0aca5af988892c8c2afe652a30544b8c", 185_602_053,
        about="clips as AVI",
    ),
    Download(
        f"{_JHMDB}/Rename_Images.tar.gz", "Rename_Images.tar.gz", "md5:23726fbac4bc69a726dc3daf2e7ab4c1", extra=True,
        about="the same clips as PNG, in the place of the AVI",
    ),
)  # fmt: skip
_JHMDB_TERMS = (
    "no licence is stated on its pages, as others report who read their archived copies; the clips are HMDB51's, whose page "
    "says CC BY 4.0, and come from films and web video. Use it for research and read the home's pages"
)
_JHMDB_DEFECTS = (
    "no visibility flags: all joints count as visible, also those outside the picture",
    "the frame count in some AVI headers is wrong (44 where 37 decode); only decoding tells",
    "coordinates are 1-based",
)
_MPII_LABELS = (
    *(f"{folder}{part}.{kind}" for folder in ("annot/", "") for kind in ("json", "h5") for part in ("train", "valid")),
    *(
        f"{folder}mpii_human_pose_v1_u12_{n}.mat"
        for folder in ("", "annot/", "mpii_human_pose_v1_u12_*/")
        for n in (1, 2)
    ),
)
_MPII_TERMS = (
    'home: "annotations and the corresponding code freely available for research purposes. Commercial use is not allowed '
    'due to the fact that the authors do not have the copyright for the images themselves"'
)

_ALL = (
    DataSet(
        name="coco",
        title="COCO 2017 keypoints",
        paper="Lin et al., Microsoft COCO: Common Objects in Context, ECCV 2014",
        home="https://cocodataset.org",
        licence="annotations CC BY 4.0; images belong to their Flickr users and follow Flickr's terms (COCO's terms of use)",
        access=OPEN,
        how="bipose data fetch coco",
        reader="bipose_lit.datasets.coco.COCO",
        joints=17,
        folder="data/coco",
        card="coco",
        apart=True,
        published={
            "train+val": {"persons": 149_813, "pictures": 56_599},
            "test": {"persons": 6_352, "pictures": 2_346},
        },
        source="persons with at least one labelled joint and the pictures they are in, as public training code and Ultralytics' "
        "coco-pose.yaml print them; the whole split has 118,287 / 5,000 images and 262,465 / 11,004 person annotations",
        downloads=(
            Download(
                f"{_COCO}/annotations/annotations_trainval2017.zip", "annotations_trainval2017.zip",
                "md5:f4bbac642086de4f52a3fdda2de5fa2c", 252_907_541, about="labels of both splits",
            ),
            Download(
                f"{_COCO}/zips/val2017.zip", "val2017.zip", "md5:442b8da7639aecaf257c1dceb8ba8c80", 815_585_330,
                about="5,000 pictures",
            ),
            Download(
                f"{_COCO}/zips/train2017.zip", "train2017.zip", "md5:cced6f7f71b7629ddf16f17bbcfab6b2", 19_336_861_798,
                about="118,287 pictures",
            ),
        ),
        defects=(
            "about two in five person annotations have no labelled joint, and some regions are crowds (iscrowd 1): "
            "they take part in the measure, not in training",
        ),
    ),
    DataSet(
        name="mpii",
        title="MPII Human Pose",
        paper="Andriluka et al., 2D Human Pose Estimation: New Benchmark and State of the Art Analysis, CVPR 2014",
        home="http://human-pose.mpi-inf.mpg.de",
        licence=_MPII_TERMS,
        access=OPEN,
        how="bipose data fetch mpii; the usual training and validation lists (valid.h5 of Newell et al., train.json and "
        "valid.json of HRNet) are not the owners' and are had from those projects",
        reader="bipose_lit.datasets.mpii.MPII",
        joints=16,
        folder="data/mpii",
        card="mpii",
        spares=("images",),
        either=_MPII_LABELS,
        published={"train+val": {"persons": 22_246}, "test": {"persons": 2_958}},
        source="the lists of Newell et al. 2016, which nearly all later papers use; test labels are withheld by the owners",
        downloads=(
            Download(
                f"{_MPII}/mpii_human_pose_v1_u12_2.zip", "mpii_human_pose_v1_u12_2.zip", size=12_340_483,
                top="mpii_human_pose_v1_u12_2", about="labels",
            ),
            Download(f"{_MPII}/mpii_human_pose_v1.tar.gz", "mpii_human_pose_v1.tar.gz", size=12_900_000_000, about="pictures"),
        ),
        defects=(
            "`visible` of the h5 lists is occlusion, not the mask of missing joints (jnt_missing)",
            "reference code adds 1 to predictions before it compares them with the 1-based labels",
        ),
    ),
    DataSet(
        name="mpii_sequences",
        title="MPII Human Pose with neighbouring frames",
        paper="Andriluka et al., CVPR 2014 (the short videos around each labelled picture)",
        home="http://human-pose.mpi-inf.mpg.de",
        licence=_MPII_TERMS,
        access=OPEN,
        how="bipose data fetch mpii_sequences; 25 archives of about 17 GB each, so name the ones you want with --only",
        reader="bipose_lit.datasets.mpii_sequences.MPIISequences",
        joints=16,
        folder="data/mpii_sequences",
        card="mpii",
        either=_MPII_LABELS,
        source="one labelled frame a sequence, the persons of mpii",
        downloads=(
            Download(
                f"{_MPII}/mpii_human_pose_v1_sequences_keyframes.mat", "mpii_human_pose_v1_sequences_keyframes.mat", into=None,
                about="which frame of which video is labelled",
            ),
            Download(
                f"{_MPII}/mpii_human_pose_v1_u12_2.zip", "mpii_human_pose_v1_u12_2.zip", size=12_340_483,
                top="mpii_human_pose_v1_u12_2", about="labels",
            ),
            *(
                Download(
                    f"{_MPII}/mpii_human_pose_v1_sequences_batch{n}.tar.gz", f"mpii_human_pose_v1_sequences_batch{n}.tar.gz",
                    size=17_000_000_000, extra=True, about="frames",
                )
                for n in range(1, 26)
            ),
        ),
        defects=("only one frame of each sequence is labelled",),
    ),
    DataSet(
        name="penn",
        title="Penn Action",
        paper="Zhang, Zhu, Derpanis, From Actemes to Action: A Strongly-supervised Representation for Detailed Action "
        "Understanding, ICCV 2013",
        home="http://dreamdragon.github.io/PennAction/",
        licence="no licence was found stated; for research, read the home's page",
        access=OPEN,
        how="bipose data fetch penn",
        reader="bipose_lit.datasets.penn.PennAction",
        joints=13,
        folder="data/penn_action",
        card="penn_action",
        published={"train+val": {"clips": 1_258}, "test": {"clips": 1_068}},
        source="the flag `train` in the 2,326 label files, as papers that train on it count them (LSTM Pose Machines, 2018)",
        downloads=(
            Download(
                "https://www.cis.upenn.edu/~kostas/Penn_Action.tar.gz", "Penn_Action.tar.gz", size=3_235_203_923,
                top="Penn_Action", about="frames and labels",
            ),
        ),
        defects=(
            "`nframes` is stored as uint8 and overflows in clips of more than 255 frames; the reader goes by the coordinates",
            "clips 1154 and 1865 have one box fewer than frames; the last one is repeated",
            "visibility 0 means not annotated: such coordinates are placeholders at the left or top edge",
            "coordinates are 1-based",
        ),
        aliases=("penn_action",),
    ),
    DataSet(
        name="jhmdb",
        title="JHMDB",
        paper="Jhuang, Gall, Zuffi, Schmid, Black, Towards Understanding Action Recognition, ICCV 2013",
        home="http://jhmdb.is.tue.mpg.de",
        licence=_JHMDB_TERMS,
        access=OPEN,
        how="bipose data fetch jhmdb (the home's pages are reported gone; its file server is not)",
        reader="bipose_lit.datasets.jhmdb.JHMDB",
        joints=15,
        folder="data/jhmdb",
        card="jhmdb",
        published={"train+val+test": {"clips": 928}},
        source="the paper",
        downloads=(
            *_JHMDB_LABELS,
            Download(
                f"{_JHMDB}/splits.zip", "splits.zip", "md5:15b9f2f7a99d63c07f3be0c9ecde43b5", 43_785, about="three splits"
            ),
            *_JHMDB_PIXELS,
        ),
        defects=_JHMDB_DEFECTS,
    ),
    DataSet(
        name="sub_jhmdb",
        title="sub-JHMDB",
        paper="Jhuang, Gall, Zuffi, Schmid, Black, Towards Understanding Action Recognition, ICCV 2013",
        home="http://jhmdb.is.tue.mpg.de",
        licence=_JHMDB_TERMS,
        access=OPEN,
        how="bipose data fetch sub_jhmdb",
        reader="bipose_lit.datasets.jhmdb.JHMDB",
        joints=15,
        folder="data/jhmdb",
        card="jhmdb",
        arguments={"splits_folder": "sub_splits"},
        needs=("sub_splits",),
        spares=("splits",),
        published={"train+val+test": {"clips": 316}},
        source="the paper: the clips in which the whole body is inside the picture",
        downloads=(
            *_JHMDB_LABELS,
            Download(
                f"{_JHMDB}/sub_splits.zip", "sub_splits.zip", "md5:e459df140cde2125c61970151a0ea8cb", 19_829, "sub_splits",
                about="three splits",
            ),
            *_JHMDB_PIXELS,
        ),
        defects=_JHMDB_DEFECTS,
        aliases=("sub-jhmdb", "subjhmdb"),
    ),
    DataSet(
        name="posetrack18",
        title="PoseTrack18",
        paper="Andriluka et al., PoseTrack: A Benchmark for Human Pose Estimation and Tracking, CVPR 2018",
        home="https://posetrack.net",
        licence="CC BY-NC 4.0 (a badge on the home's About page, as others report who read its archived copy); the frames are "
        "MPII's raw videos, whose owners allow research alone",
        access=CLICK,
        how="register at https://posetrack.net/users/download.php, accept the terms, and unpack posetrack18_images.tar.a* (18 "
        "parts, joined with cat) and posetrack18_v0.45_public_labels.tar.gz; in August 2026 the site was reported "
        "unreachable, and PoseTrack21 (https://github.com/anDoer/PoseTrack21, by request) holds the same frames",
        reader="bipose_lit.datasets.posetrack.PoseTrack18",
        joints=15,
        folder="data/posetrack18",
        card="posetrack18",
        source="no count of this release was found stated by its owners, so none is compared",
        defects=(
            "17 slots, of which the two ears are never labelled",
            "test labels are withheld by the owners",
        ),
        aliases=("posetrack",),
    ),
    DataSet(
        name="h36m",
        title="Human3.6M",
        paper="Ionescu, Papava, Olaru, Sminchisescu, Human3.6M: Large Scale Datasets and Predictive Methods for 3D Human Sensing "
        "in Natural Environments, TPAMI 2014",
        home="http://vision.imar.ro/human3.6m",
        licence="for academic use under the owners' own agreement; no redistribution, so no copy of it is fetched",
        access=REQUEST,
        how="register at http://vision.imar.ro/human3.6m, accept the agreement, and turn the 3D positions into data_3d_h36m.npz "
        "as VideoPose3D's DATASETS.md describes; 2D detections in its layout are "
        "https://dl.fbaipublicfiles.com/video-pose-3d/data_2d_h36m_cpn_ft_h36m_dbb.npz",
        reader="bipose_lit.datasets.h36m.H36M",
        joints=17,
        folder="data/h36m",
        card="h36m",
        files={
            "positions": ("data_3d_*.npz", "tracks.npz"),
            "detections": ("data_2d_*cpn*.npz", "data_2d_*.npz"),
            "cameras": ("cameras.json",),
        },
        source="3.6 million poses of 11 subjects (paper); papers train on S1, S5, S6, S7, S8 and test on S9, S11",
        defects=("the npz is pickled: it is read with a restricted unpickler, never with allow_pickle",),
        aliases=("human36m", "human3.6m"),
    ),
    DataSet(
        name="mocap",
        title="Motion capture in BVH",
        paper="CMU Graphics Lab Motion Capture Database; any other BVH files",
        home="http://mocap.cs.cmu.edu",
        licence='CMU: "free for all uses"; "you may not resell this data directly, even in converted form". Other files keep '
        "their owners' terms",
        access=HAND,
        how="take BVH conversions of CMU's takes from http://mocap.cs.cmu.edu (Resources names them; it asks not to be "
        "crawled), or your own files, and put them into one folder",
        reader="bipose_lit.datasets.mocap.Mocap",
        joints=17,
        folder="data/mocap",
        card="mocap",
        source="nothing to compare with: any files will do",
        defects=("units differ between files (inches, centimetres, metres); a file does not say which it has",),
        aliases=("bvh", "cmu"),
    ),
    DataSet(
        name="video_json",
        title="Your own videos and labels",
        paper="",
        home="data/video_json.md",
        licence="yours",
        access=OWN,
        how="write the labels as data/video_json.md says",
        reader="bipose_lit.datasets.video_json.VideoJSON",
        joints=0,
        folder="data/mine",
        card="video_json",
        files={"skeleton": ("skeleton.yaml",)},
        source="",
        aliases=("own", "video"),
    ),
    DataSet(
        name="synthetic",
        title="bipose's synthetic set",
        paper="",
        home="data/synthetic.md",
        licence="yours, as any output of the program; motion files keep their owners' terms",
        access=OWN,
        how="bipose data make --root data/synthetic",
        reader="bipose_lit.datasets.jhmdb.JHMDB",
        joints=15,
        folder="data/synthetic",
        card="synthetic",
        source="manifest.json in its folder says what was made",
    ),
)  # fmt: skip

CATALOGUE: Mapping[str, DataSet] = {d.name: d for d in _ALL}
"""All sets by name."""


def find(name: str) -> DataSet:
    """A set by its name or another name of it.

    Raises:
        BiposeError: there is none; suggests a near one.
    """
    known = {**{a: d for d in _ALL for a in d.aliases}, **CATALOGUE}
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name.lower(), known, 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise BiposeError(f"data set {name!r} is none of {', '.join(CATALOGUE)}{hint}")
