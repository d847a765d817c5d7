"""How well objects are found: average precision by the rules of COCO and VOC.

`truth.collect` reads what there is to find, once; `found.originals` turns what
a detector says of a batch into pixels of the images; `detections.collect` keeps
that, masks as run lengths; `coco.evaluate` and `voc.evaluate` judge it, and
`files.save` writes it; `images.matched` says how single images went. All of it
runs on the host.
"""
