"""The terms that pages explain where they stand."""

# Keys are lower case; a heading or a name on a page that equals one of them becomes a link to it.
TERMS: dict[str, str] = {
    "auroc": "Area under the ROC curve: the probability that the model scores a random positive"
    " image above a random negative one. 0.5 is chance, 1 is perfect.",
    "accuracy": "Fraction of the images whose class the model calls correctly.",
    "sensitivity": "Fraction of the positive images that the model calls positive.",
    "specificity": "Fraction of the negative images that the model calls negative.",
    "top-1": "Fraction of the images whose highest-scored class is the true one.",
    "top-1 accuracy": "Fraction of the images whose highest-scored class is the true one.",
    "top-3": "Fraction of the images whose true class is among the three highest-scored ones.",
    "dice": "Overlap of predicted and true mask: twice the common area over the sum of both areas."
    " 1 is identical, 0 is disjoint.",
    "iou": "Intersection over union of predicted and true mask. 1 is identical, 0 is disjoint.",
    "brier score": "Mean squared distance of the predicted probabilities from the truth. 0 is"
    " perfect.",
    "calibration error": "Mean distance of predicted probability and observed frequency over bins"
    " of equally many images. 0 is perfect.",
    "interval": "Confidence interval over patients: the range of values that these patients do not"
    " contradict. All images of a patient are resampled together.",
    "bca": "Bias-corrected and accelerated bootstrap: an interval from resampled patients.",
    "delong": "An interval of the AUROC from a formula, summed over patients after Obuchowski. It"
    " checks the bootstrap interval and does not decide anything.",
    "difference": "New model minus current model on the same images. Positive: the new model is"
    " better.",
    "margin": "The largest loss that still counts as not worse. It is set in the parameters before"
    " the comparison.",
    "floor": "The lowest value that a release may have.",
    "detectable": "The smallest true difference that this number of patients shows with a"
    " probability of 80 %.",
    "power": "The probability that the gate accepts a model that is exactly as good as the current"
    " one.",
    "p": "Probability of a result at least as extreme if there were no true difference.",
    "adjusted p": "p value after Holm's correction for the number of tests on this page.",
    "holm": "Holm's correction: raises p values so that the chance of any false alarm among all"
    " tests stays below the level.",
    "mmd²": "Squared maximum mean discrepancy: a distance of two sets of embeddings. 0: the sets"
    " look alike. The estimate can be slightly negative.",
    "usual": "The distance that training sites have from each other (95 % quantile). Only a larger"
    " one counts as drift.",
    "embedding": "The vector that the encoder computes for an image.",
    "embeddings": "The vectors that the encoder computes for images.",
    "drift": "New images differ from the training images by more than sites usually differ.",
    "threshold": "The score from which an image is called positive. It comes from the validation"
    " images.",
    "calibration": "Agreement of predicted probabilities with observed frequencies.",
    "temperature": "A factor on the model's logits, fitted on validation images, that makes scores"
    " calibrated probabilities.",
    "quarantine": "Inputs that ingest refused, each with the reason. Their pixels are not stored.",
    "silhouette": "How well groups separate, from −1 to 1. 0: the groups overlap completely.",
    "t-sne": "A layout of points in the plane that keeps neighbours together. Distances between"
    " far groups mean nothing.",
    "roc curve": "Sensitivity against 1 − specificity over all thresholds.",
    "synthetic": "Made by the phantom simulator. Numbers from synthetic images say nothing about"
    " patients.",
    "champion": "The release that is in use.",
    "split": "The part of the data that an image belongs to: training, validation or test.",
    "near-identical": "Images whose perceptual hashes differ in a few bits only.",
    "mcnemar": "An exact test on the images that only one of two models gets right.",
    "macs": "Multiply-accumulate operations for one image.",
    "local snr": "Mean over standard deviation of grey levels in small patches of speckle.",
}


class Glossary:
    """The terms that one page uses, collected while it is rendered."""

    def __init__(self) -> None:
        self._used: set[str] = set()

    def use(self, name: str) -> str | None:
        """The explanation of a term, which the page then lists; None for other words."""
        explanation = TERMS.get(name.strip().lower())
        if explanation is not None:
            self._used.add(name.strip().lower())
        return explanation

    @property
    def used(self) -> dict[str, str]:
        return {name: TERMS[name] for name in TERMS if name in self._used}
